"""Which log probabilities belong to the text of an answer."""

from collections.abc import Sequence

from g4jax.chat.output import ends_in_thought
from g4jax.chat.tokenizer import Tokenizer
from server.answers import ChatLogprobs, TokenLogprob


class TextLogprobs:
    """Takes the entries of all tokens and keeps those of text: no thoughts, no calls, no control tokens."""

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int]):
        control = tokenizer.control
        self._openers = {_spelled(tokenizer, i) for i in (control.channel_open, control.call_open)}
        self._closers = {_spelled(tokenizer, i) for i in (control.channel_close, control.call_close)}
        self._in_text = not ends_in_thought(tokenizer, prompt_ids)
        self._kept: list[TokenLogprob] = []

    def add(self, entries: ChatLogprobs | None) -> None:
        for entry in [] if entries is None else entries.content:
            if entry.bytes is None:
                self._in_text = (self._in_text or entry.token in self._closers) and entry.token not in self._openers
            elif self._in_text:
                for top in entry.top_logprobs:
                    top.bytes = top.bytes or []  # Here a control token is a token without bytes.
                self._kept.append(entry)

    def take(self) -> list[TokenLogprob]:
        """What was kept since the last call."""
        kept, self._kept = self._kept, []
        return kept


def _spelled(tokenizer: Tokenizer, token: int | None) -> str | None:
    return None if token is None else tokenizer.id_to_token(token)
