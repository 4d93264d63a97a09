"""Log probabilities as the engine tells them -> as the API's answers hold them."""

import codecs
from collections.abc import Iterable, Sequence

from g4jax.chat.tokenizer import Tokenizer
from g4jax.engine.request import TokenLogprobs
from server.answers import (
    ChatLogprobs,
    PromptLogprob,
    PromptLogprobs,
    TextLogprobs,
    TokenLogprob,
    TopLogprob,
)

LOWEST = -9999.0
"""JSON has no infinity; this is OpenAI's number for a token that cannot come."""


class TokenNames:
    """How tokens are called: by their text, or with `as_ids` by token_id:ID.

    Bytes that are no whole character are written \\xNN, and control tokens as Gemma spells them.
    """

    def __init__(self, tokenizer: Tokenizer, *, as_ids: bool = False):
        self._tokenizer = tokenizer
        self._as_ids = as_ids

    def name(self, token: int) -> str:
        if self._as_ids:
            return f"token_id:{token}"
        return self._tokenizer.token_bytes(token, skip_special_tokens=False).decode(errors="backslashreplace")

    def text_bytes(self, token: int) -> list[int] | None:
        """None for a token that is no text."""
        return None if token in self._tokenizer.control_ids else list(self._tokenizer.token_bytes(token))


class ChatEntries:
    """The entries of a chat's tokens that no chunk has taken yet, each with the `num_top` likeliest tokens."""

    def __init__(self, names: TokenNames, num_top: int):
        self._names = names
        self._num_top = num_top
        self._entries: list[TokenLogprob] = []

    def add(self, token: int, told: TokenLogprobs) -> None:
        names = self._names
        top = [
            TopLogprob(names.name(i), _finite(logprob), names.text_bytes(i))
            for i, logprob in _likeliest(told, self._num_top)
        ]
        self._entries.append(TokenLogprob(names.name(token), _finite(told.logprob), names.text_bytes(token), top))

    def take(self) -> ChatLogprobs | None:
        """None when there is nothing new."""
        entries, self._entries = self._entries, []
        return ChatLogprobs(entries) if entries else None


class TextEntries:
    """The entries of a completion's tokens that no chunk has taken yet.

    `num_top` likeliest tokens are told and the token itself. Offsets count the characters of the texts added before.
    """

    def __init__(self, tokenizer: Tokenizer, names: TokenNames, num_top: int):
        self._tokenizer = tokenizer
        self._names = names
        self._num_top = num_top
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._entries = TextLogprobs([], [], [], [])

    def add(
        self, ids: Sequence[int], told: Iterable[TokenLogprobs | None], *, skip_special_tokens: bool = True
    ) -> None:
        """`skip_special_tokens`: whether the text is without the control tokens."""
        entries = self._entries
        for token, each in zip(ids, told, strict=True):
            entries.text_offset.append(self._offset)
            entries.tokens.append(self._names.name(token))
            entries.token_logprobs.append(None if each is None else _finite(each.logprob))
            entries.top_logprobs.append(None if each is None else self._top(token, each))
            text = self._tokenizer.token_bytes(token, skip_special_tokens=skip_special_tokens)
            self._offset += len(self._decoder.decode(text))

    def take(self) -> TextLogprobs | None:
        """None when there is nothing new."""
        entries, self._entries = self._entries, TextLogprobs([], [], [], [])
        return entries if entries.tokens else None

    def _top(self, token: int, told: TokenLogprobs) -> dict[str, float]:
        """By name; of two tokens with the same one, the likelier."""
        top: dict[str, float] = {}
        for i, logprob in [*_likeliest(told, self._num_top), (token, told.logprob)]:
            top.setdefault(self._names.name(i), _finite(logprob))
        return top


def prompt_logprobs(
    names: TokenNames, ids: Sequence[int], told: Sequence[TokenLogprobs | None], num_top: int
) -> PromptLogprobs:
    return [None if each is None else _by_id(names, i, each, num_top) for i, each in zip(ids, told, strict=True)]


def _by_id(names: TokenNames, token: int, told: TokenLogprobs, num_top: int) -> dict[int, PromptLogprob]:
    by_id = {token: PromptLogprob(_finite(told.logprob), names.name(token))}
    for rank, (i, logprob) in enumerate(_likeliest(told, num_top), 1):
        by_id[i] = PromptLogprob(_finite(logprob), names.name(i), rank)
    return by_id


def _likeliest(told: TokenLogprobs, num_top: int) -> Iterable[tuple[int, float]]:
    return zip(told.top_ids[:num_top], told.top_logprobs[:num_top], strict=True)


def _finite(logprob: float) -> float:
    return logprob if logprob > LOWEST else LOWEST
