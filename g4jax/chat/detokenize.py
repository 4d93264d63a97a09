"""Token ids to text, piece by piece."""

import codecs
from collections.abc import Iterable, Sequence

from g4jax.chat.tokenizer import Tokenizer


class Detokenizer:
    """Turns a stream of ids into a stream of text. Joined, the pieces are `Tokenizer.decode` of all ids.

    A character whose bytes come from several tokens is given out when its last byte is there, never in part.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True):
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Iterable[int]) -> str:
        token_bytes = self._tokenizer.token_bytes
        return self._decoder.decode(b"".join(token_bytes(i, skip_special_tokens=self._skip) for i in ids))

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never became whole, else nothing."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


class StopStrings:
    """Finds the first of several strings in a stream of text and holds back what may yet become one.

    The match that is complete first counts (of two that end together, the longer one), however the text is cut.
    Linear time: one Knuth-Morris-Pratt automaton for each string.
    """

    def __init__(self, stops: Sequence[str]):
        self._stops = [stop for stop in stops if stop]
        self._fallbacks = [_fallbacks(stop) for stop in self._stops]
        self._states = [0] * len(self._stops)
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> tuple[str, str | None]:
        """(text to give out, the stop string that was found or None). After a match nothing is given out any more."""
        if self.matched is not None:
            return "", self.matched
        held = self._held + text
        for i in range(len(self._held), len(held)):
            self._step(held[i])
            if self.matched is not None:
                self._held = ""
                return held[: i + 1 - len(self.matched)], self.matched
        keep = max(self._states, default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep], None

    def flush(self) -> str:
        """What was held back, at the end of the stream."""
        text, self._held = self._held, ""
        self._states = [0] * len(self._stops)
        return text

    def _step(self, char: str) -> None:
        for n, (stop, fallbacks) in enumerate(zip(self._stops, self._fallbacks, strict=True)):
            state = self._states[n]
            while state and stop[state] != char:
                state = fallbacks[state]
            state += stop[state] == char
            self._states[n] = state
            if state == len(stop) and len(stop) > len(self.matched or ""):
                self.matched = stop


def _fallbacks(stop: str) -> list[int]:
    """For each length n < len(stop): the longest proper prefix of stop that ends stop[:n]."""
    table = [0] * len(stop)
    state = 0
    for n in range(1, len(stop) - 1):
        while state and stop[n] != stop[state]:
            state = table[state]
        state += stop[n] == stop[state]
        table[n + 1] = state
    return table
