"""The text of one choice of a plain completion."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from g4jax.chat.detokenize import Detokenizer, StopStrings
from g4jax.chat.tokenizer import Tokenizer
from g4jax.engine.request import TokenLogprobs
from server.answers import StopReason, TextLogprobs
from server.logprobs import TextEntries, TokenNames
from server.messages import Update


@dataclass(frozen=True)
class Echo:
    """The prompt, given back in front of the answer. The first `num_hidden` of its ids have no place in the text."""

    text: str
    ids: Sequence[int]
    num_hidden: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, prompt: str | Sequence[int], ids: Sequence[int]) -> "Echo":
        """A text comes back as it is, ids (of the prompt) as text with its control tokens, but for a BOS in front."""
        bos = tokenizer.decode(ids[:1], skip_special_tokens=False) if ids[0] == tokenizer.bos_id else None
        if isinstance(prompt, str):
            return cls(prompt, ids, int(bos is not None and not prompt.startswith(bos)))
        hidden = int(bos is not None)
        return cls(tokenizer.decode(ids[hidden:], skip_special_tokens=False), ids, hidden)


@dataclass(frozen=True)
class TextWishes:
    """What a client wants of a completion.

    stops: texts that end it. min_tokens: no stop text counts before. echo: what comes first. prompt_only: nothing is
    generated, the engine's first token is dropped. logprobs: those of each token are told, of an echo's too, and of
    so many of the likeliest. tokens_as_ids: they name tokens by id.
    """

    stops: Sequence[str] = ()
    min_tokens: int = 0
    echo: Echo | None = None
    prompt_only: bool = False
    logprobs: int | None = None
    tokens_as_ids: bool = False


class TextOutput:
    """Token ids in, text out; cut at the first stop text, which is held back while it may still come.

    Attributes:
      num_tokens: tokens generated up to the end, those of a stop text included, later ones not.
      cached_tokens: tokens of the prompt that the engine had in its cache.
      finish_reason: None until the end, which may come before that of the engine.
      reasoning_tokens: 0, nothing is parsed here.
      matched_stop: the stop text, or the token id, that ended it.
      prompt_logprobs: those of the prompt's tokens, if the engine was asked for them.
    """

    def __init__(self, tokenizer: Tokenizer, wishes: TextWishes):
        self.num_tokens = 0
        self.cached_tokens = 0
        self.reasoning_tokens = 0
        self.finish_reason: StopReason | None = None
        self.matched_stop: int | str | None = None
        self.prompt_logprobs: list[TokenLogprobs | None] | None = None
        self._wishes = wishes
        self._echo = wishes.echo
        self._detokenizer = Detokenizer(tokenizer)
        self._stops = StopStrings(wishes.stops)
        names = TokenNames(tokenizer, as_ids=wishes.tokens_as_ids)
        self._entries = None if wishes.logprobs is None else TextEntries(tokenizer, names, wishes.logprobs)

    def feed(self, update: Update) -> str:
        """The text that an update adds."""
        self.cached_tokens = update.cached_tokens
        self.prompt_logprobs = update.prompt_logprobs or self.prompt_logprobs
        text = self._take_echo()
        if self._wishes.prompt_only:
            self.finish_reason = "length"
            return text
        num_visible = len(update.token_ids) - (update.stop_id is not None)
        for ids, logprobs in self._steps(update, num_visible):
            if self.finish_reason is None:
                self._count(ids, logprobs)
                text += self._until_stop(ids)
        if self.finish_reason is None and update.finish_reason is not None:
            self._count(update.token_ids[num_visible:], update.logprobs[num_visible:])
            text += self._end(update)
        return text

    def take_logprobs(self) -> TextLogprobs | None:
        """The entries of the tokens since the last call."""
        return None if self._entries is None else self._entries.take()

    def _take_echo(self) -> str:
        echo, self._echo = self._echo, None
        if echo is None:
            return ""
        if self._entries is not None:
            told = self.prompt_logprobs or []
            hidden = echo.num_hidden
            self._entries.add(echo.ids[:hidden], told[:hidden])
            self._entries.add(echo.ids[hidden:], told[hidden:], skip_special_tokens=False)
        return echo.text

    def _steps(self, update: Update, num_visible: int) -> Iterator[tuple[list[int], list[TokenLogprobs]]]:
        """With stop texts token by token, so that the count ends where the text does."""
        if not self._wishes.stops:
            yield update.token_ids[:num_visible], update.logprobs[:num_visible]
            return
        for at in range(num_visible):
            yield update.token_ids[at : at + 1], update.logprobs[at : at + 1]

    def _count(self, ids: list[int], logprobs: list[TokenLogprobs]) -> None:
        self.num_tokens += len(ids)
        if self._entries is not None:
            self._entries.add(ids, logprobs)

    def _until_stop(self, ids: list[int]) -> str:
        text = self._detokenizer.feed(ids)
        if not self._wishes.stops or self.num_tokens < self._wishes.min_tokens:
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
