"""Texts of pieces that are written at the same time, told in the order of their pieces."""

import unicodedata


class JoinedText:
    """Attributes: `text`, what has been told; blanks at the ends of pieces are left out."""

    def __init__(self, num_pieces: int):
        self.text = ""
        self._waiting = [""] * num_pieces
        self._ended = [False] * num_pieces
        self._at = 0
        self._begun = False
        """Whether anything of the piece `_at` has been told."""

    def add(self, index: int, text: str, ended: bool) -> str:
        """What `text`, the next of the piece `index`, allows to be told."""
        self._waiting[index] += text
        self._ended[index] = ended
        before = len(self.text)
        while self._at < len(self._waiting):
            self._tell()
            if not self._ended[self._at]:
                break
            self._at, self._begun = self._at + 1, False
        return self.text[before:]

    def _tell(self) -> None:
        waiting = self._waiting[self._at]
        if not self._begun:
            waiting = waiting.lstrip()
        told = waiting.rstrip()
        self._waiting[self._at] = waiting[len(told) :]  # Blanks wait for what follows them.
        if told and not self._begun:
            self._begun = True
            self.text += _gap(self.text)
        self.text += told


def _gap(before: str) -> str:
    """Between two pieces: nothing where the script knows no blanks."""
    return "" if not before or unicodedata.east_asian_width(before[-1]) in "WF" else " "
