"""From one placeholder for each medium, as chat templates write it, to one token for each embedding that it fills."""

from collections.abc import Sequence

from g4jax.chat.tokenizer import Tokenizer
from g4jax.media.inputs import MediaKind, Medium, PlacedInput, SoftInput


def expand(
    ids: Sequence[int], media: Sequence[Medium], tokenizer: Tokenizer
) -> tuple[list[int], tuple[PlacedInput, ...]]:
    """The ids of a rendered prompt with every placeholder opened, and which input fills which of them.

    An image becomes `<|image> <|image|>... <image|>`, a sound `<|audio> <|audio|>... <audio|>`, a video one such group
    of `<|video|>` for every frame, each behind its time as MM:SS. `media` stand in the order of their placeholders.

    Raises:
        ValueError: the placeholders are not those of `media`.
    """
    placeholders = _placeholders(tokenizer)
    given = [placeholders[token] for token in ids if token in placeholders]
    if given != [medium.kind for medium in media]:
        wanted = ", ".join(medium.kind for medium in media) or "none"
        raise ValueError(f"the prompt has placeholders for {', '.join(given) or 'none'}, the media are {wanted}")
    prompt = _Prompt(tokenizer)
    coming = iter(media)
    for token in ids:
        if token in placeholders:
            prompt.add_medium(next(coming))
        else:
            prompt.add(token)
    return prompt.ids, tuple(prompt.placed)


def placeholder_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids that stand for embeddings, wherever they come from."""
    return frozenset(_placeholders(tokenizer))


def _placeholders(tokenizer: Tokenizer) -> dict[int, MediaKind]:
    control = tokenizer.control
    kinds: dict[int | None, MediaKind] = {control.image: "image", control.audio: "audio", control.video: "video"}
    return {token: kind for token, kind in kinds.items() if token is not None}


class _Prompt:
    def __init__(self, tokenizer: Tokenizer):
        self.ids: list[int] = []
        self.placed: list[PlacedInput] = []
        self._tokenizer = tokenizer
        self._text_start = 0
        """Where the text behind the last control token begins."""

    def add(self, token: int) -> None:
        self.ids.append(token)
        if token in self._tokenizer.control_ids:
            self._text_start = len(self.ids)

    def add_medium(self, medium: Medium) -> None:
        for number, piece in enumerate(medium.inputs):
            if medium.timestamps:
                minutes, seconds = divmod(int(medium.timestamps[number]), 60)
                self._add_text(f"{' ' if number else ''}{minutes:02}:{seconds:02} ")
            self._add_input(piece)

    def _add_text(self, text: str) -> None:
        # Tokens may merge over the border: the text before it is encoded again with it, as if it had come at once.
        before = self._tokenizer.decode(self.ids[self._text_start :])
        self.ids[self._text_start :] = self._tokenizer.encode_text(before + text)

    def _add_input(self, piece: SoftInput) -> None:
        control = self._tokenizer.control
        is_audio = piece.kind == "audio"
        first, last = (
            (control.audio_open, control.audio_close) if is_audio else (control.image_open, control.image_close)
        )
        token = {"image": control.image, "video": control.video, "audio": control.audio}[piece.kind]
        assert first is not None and last is not None and token is not None
        self.add(first)
        self.placed.append(PlacedInput(len(self.ids), piece))
        self.ids += [token] * piece.num_tokens
        self.add(last)
