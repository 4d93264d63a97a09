"""The text of one choice of a plain completion."""

from collections.abc import Iterable, Sequence

from g4jax.chat.detokenize import Detokenizer, StopStrings
from g4jax.chat.tokenizer import Tokenizer
from server.answers import StopReason
from server.messages import Update


class TextOutput:
    """Token ids in, text out; cut at the first stop text, which is held back while it may still come.

    Attributes:
      num_tokens: tokens generated up to the end, those of a stop text included, later ones not.
      cached_tokens: tokens of the prompt that the engine had in its cache.
      finish_reason: None until the end, which may come before that of the engine.
      reasoning_tokens: 0, nothing is parsed here.
      matched_stop: the stop text, or the token id, that ended it.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], min_tokens: int = 0):
        self.num_tokens = 0
        self.cached_tokens = 0
        self.reasoning_tokens = 0
        self.finish_reason: StopReason | None = None
        self.matched_stop: int | str | None = None
        self._detokenizer = Detokenizer(tokenizer)
        self._stops = StopStrings(stops)
        self._one_by_one = bool(stops)
        self._min_tokens = min_tokens

    def feed(self, update: Update) -> str:
        """The text that an update adds."""
        self.cached_tokens = update.cached_tokens
        visible = update.token_ids if update.stop_id is None else update.token_ids[:-1]
        text = "".join(self._take(ids) for ids in self._steps(visible))
        if self.finish_reason is None and update.finish_reason is not None:
            self.num_tokens += len(update.token_ids) - len(visible)
            text += self._end(update)
        return text

    def _steps(self, ids: list[int]) -> Iterable[list[int]]:
        """With stop texts token by token, so that the count ends where the text does."""
        return [[i] for i in ids] if self._one_by_one else [ids]

    def _take(self, ids: list[int]) -> str:
        if self.finish_reason is not None:
            return ""
        self.num_tokens += len(ids)
        text = self._detokenizer.feed(ids)
        if self._one_by_one and self.num_tokens < self._min_tokens:
            return text
        text, matched = self._stops.feed(text)
        if matched is not None:
            self.finish_reason, self.matched_stop = "stop", matched
        return text

    def _end(self, update: Update) -> str:
        text, matched = self._stops.feed(self._detokenizer.flush())
        if matched is None:
            text += self._stops.flush()
        self.finish_reason = "length" if update.finish_reason == "length" and matched is None else "stop"
        self.matched_stop = matched or update.stop_id
        return text
