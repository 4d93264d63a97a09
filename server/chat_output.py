"""One choice of a chat: token ids in, deltas out. Streamed or not, an answer comes through here."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from g4jax.chat.detokenize import StopStrings
from g4jax.chat.events import Content, Event, Reasoning, ToolCallArguments, ToolCallEnd, ToolCallStart
from g4jax.chat.output import OutputParser, ends_in_thought
from g4jax.chat.tokenizer import Tokenizer
from g4jax.engine.request import TokenLogprobs
from server.answers import ChatLogprobs, Delta, Function, StopReason, ToolCall
from server.logprobs import ChatEntries, TokenNames
from server.messages import Update


@dataclass(frozen=True)
class Wishes:
    """What a client wants of the answer.

    stops: texts that end the content; thoughts and the arguments of calls are not searched. min_tokens: no stop text
    counts before. hide_reasoning: drop the thought. join_reasoning: put it into the content. one_call: the
    parser ends after the first call. logprobs: those of each token are told, and of so many of the likeliest.
    tokens_as_ids: they name tokens by id.
    """

    stops: Sequence[str] = ()
    min_tokens: int = 0
    hide_reasoning: bool = False
    join_reasoning: bool = False
    one_call: bool = False
    logprobs: int | None = None
    tokens_as_ids: bool = False


class ChatOutput:
    """Drives the parser of one answer.

    Attributes:
      num_tokens: tokens generated up to the end; reasoning_tokens: those within a thought.
      cached_tokens: tokens of the prompt that the engine had in its cache.
      finish_reason: None until the end, which may come before that of the engine.
      matched_stop: the stop text, or the token id, that ended it.
      finished_calls: the indices of the calls that are whole.
      prompt_logprobs: those of the prompt's tokens, if the engine was asked for them.
    """

    def __init__(self, tokenizer: Tokenizer, parser: OutputParser, prompt_ids: Sequence[int], wishes: Wishes):
        self.num_tokens = 0
        self.reasoning_tokens = 0
        self.cached_tokens = 0
        self.finish_reason: StopReason | None = None
        self.matched_stop: int | str | None = None
        self.finished_calls: set[int] = set()
        self.prompt_logprobs: list[TokenLogprobs | None] | None = None
        self._tokenizer = tokenizer
        self._parser = parser
        self._wishes = wishes
        self._stops = StopStrings(wishes.stops)
        self._one_by_one = bool(wishes.stops) or wishes.one_call
        self._in_thought = ends_in_thought(tokenizer, prompt_ids)
        names = TokenNames(tokenizer, as_ids=wishes.tokens_as_ids)
        self._entries = None if wishes.logprobs is None else ChatEntries(names, wishes.logprobs)

    def feed(self, update: Update) -> list[Delta]:
        """The deltas that an update adds, one kind of thing each; none of them is empty."""
        self.cached_tokens = update.cached_tokens
        self.prompt_logprobs = update.prompt_logprobs or self.prompt_logprobs
        deltas: list[Delta] = []
        for ids, logprobs in self._steps(update):
            if self.finish_reason is None:
                self._count(ids, logprobs)
                self._take(self._parser.feed(self._readable(ids, update)), deltas)
                if self._parser.wants_stop:
                    self.finish_reason = "tool_calls"
        if self.finish_reason is None and update.finish_reason is not None:
            self._end(update, deltas)
        return deltas

    def take_logprobs(self) -> ChatLogprobs | None:
        """The entries of the tokens since the last call; those of a hidden thought are left out."""
        return None if self._entries is None else self._entries.take()

    def _steps(self, update: Update) -> Iterator[tuple[list[int], list[TokenLogprobs]]]:
        """Token by token where the end may be ours, so that the count is exact."""
        if not self._one_by_one:
            yield update.token_ids, update.logprobs
            return
        for at, token in enumerate(update.token_ids):
            yield [token], update.logprobs[at : at + 1]

    def _end(self, update: Update, deltas: list[Delta]) -> None:
        self._take(self._parser.finish(), deltas)
        if self.finish_reason is None:
            _extend(deltas, Delta(content=self._stops.flush()))
            reason = self._parser.finish_reason("length" if update.finish_reason == "length" else "stop")
            self.finish_reason = cast(StopReason, reason)
            self.matched_stop = update.stop_id

    def _count(self, ids: list[int], logprobs: list[TokenLogprobs]) -> None:
        self.num_tokens += len(ids)
        for at, token in enumerate(ids):
            is_thought = self._is_thought(token)
            if self._entries is not None and not (is_thought and self._wishes.hide_reasoning):
                self._entries.add(token, logprobs[at])

    def _is_thought(self, token: int) -> bool:
        """Follows and counts the thoughts; the tokens at both ends of one belong to it, but do not count."""
        control = self._tokenizer.control
        was_in_thought = self._in_thought
        if token == control.channel_open:
            self._in_thought = True
        elif token in (control.channel_close, control.call_open):
            self._in_thought = False
            return was_in_thought and token == control.channel_close
        else:
            self.reasoning_tokens += self._in_thought and token not in self._tokenizer.stop_ids
        return self._in_thought

    def _readable(self, ids: list[int], update: Update) -> list[int]:
        """Without the stop token, if it is one of the client's: an ordinary token that is not part of the answer."""
        stop = update.stop_id
        return ids if stop is None or stop in self._tokenizer.control_ids else [i for i in ids if i != stop]

    def _take(self, events: Iterable[Event], deltas: list[Delta]) -> None:
        for event in events:
            if self.finish_reason is not None:
                return
            match event:
                case Content(text):
                    _extend(deltas, Delta(content=self._until_stop(text)))
                case Reasoning(text):
                    _extend(deltas, self._reasoning(text))
                case ToolCallStart(index, call_id, name):
                    _extend(deltas, Delta(content=self._stops.flush()))  # No stop text goes on behind a call.
                    deltas.append(Delta(tool_calls=[ToolCall(Function("", name), index, call_id, "function")]))
                case ToolCallArguments(index, text):
                    _extend(deltas, Delta(tool_calls=[ToolCall(Function(text), index)]))
                case ToolCallEnd(index):
                    self.finished_calls.add(index)

    def _until_stop(self, text: str) -> str:
        if not self._wishes.stops or self.num_tokens < self._wishes.min_tokens:
            return text
        text, matched = self._stops.feed(text)
        if matched is not None:
            self.finish_reason, self.matched_stop = "stop", matched
        return text

    def _reasoning(self, text: str) -> Delta:
        if self._wishes.hide_reasoning:
            return Delta()
        if self._wishes.join_reasoning:
            return Delta(content=text)
        return Delta(reasoning_content=text, reasoning=text)


def _extend(deltas: list[Delta], new: Delta) -> None:
    """Appends `new`, or joins it to the last delta where both go on with the same thing."""
    last = deltas[-1] if deltas else None
    if new.content:
        if last is not None and last.content:
            last.content += new.content
            return
    elif new.reasoning:
        if last is not None and last.reasoning:
            last.reasoning = last.reasoning_content = last.reasoning + new.reasoning
            return
    elif new.tool_calls:
        piece = new.tool_calls[0]
        if last is not None and last.tool_calls and last.tool_calls[0].index == piece.index and not _starts(last):
            last.tool_calls[0].function.arguments += piece.function.arguments
            return
    else:
        return
    deltas.append(new)


def _starts(delta: Delta) -> bool:
    """The first delta of a call keeps its arguments empty, as OpenAI's own service sends it."""
    return bool(delta.tool_calls) and bool(delta.tool_calls[0].id)
