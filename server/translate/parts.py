"""One answer as a row of parts that open, grow and close: thoughts, texts and calls in the order of their coming."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from server.answers import Delta, TokenLogprob, ToolCall
from server.chat_output import ChatOutput
from server.serving import Serving
from server.translate.job import ChatJob
from server.translate.text_logprobs import TextLogprobs

Kind = Literal["thought", "text", "call"]


@dataclass
class Part:
    """`text` of a call is the JSON text of its arguments; `logprobs` are those of a text, if they were asked for.

    `whole`, known at the end: nothing cut it off.
    """

    kind: Kind
    call_id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    whole: bool = False

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True)
class Opened:
    part: Part


@dataclass(frozen=True)
class Grown:
    part: Part
    piece: str
    logprobs: list[TokenLogprob]


@dataclass(frozen=True)
class Closed:
    part: Part


Step = Opened | Grown | Closed


async def steps(job: ChatJob, serving: Serving) -> AsyncGenerator[Step, None]:
    """The answer to a job with one choice. One part is open at a time; an answer of nothing is an empty text."""
    parts = _Parts(job.outputs[0], TextLogprobs(serving.chat.tokenizer, job.adds[0].prompt_ids))
    async with aclosing(job.pieces(serving)) as pieces:
        async for _, deltas in pieces:
            for step in parts.feed(deltas):
                yield step
    for step in parts.finish():
        yield step


class _Parts:
    def __init__(self, output: ChatOutput, logprobs: TextLogprobs):
        self._output = output
        self._logprobs = logprobs
        self._open: Part | None = None
        self._call_index: int | None = None
        self._blank: dict[Kind, str] = {}
        self._any = False

    def feed(self, deltas: Sequence[Delta]) -> Iterator[Step]:
        self._logprobs.add(self._output.take_logprobs())
        for delta in deltas:
            if delta.reasoning:
                yield from self._text("thought", delta.reasoning)
            elif delta.content:
                yield from self._text("text", delta.content)
            elif delta.tool_calls:
                yield from self._call(delta.tool_calls[0])
        if self._open is not None and self._open.kind == "call" and self._call_is_whole():
            yield from self._close(whole=True)

    def finish(self) -> Iterator[Step]:
        if not self._any:
            yield self._begin(Part("text"))
        yield from self._close(whole=self._output.finish_reason != "length")

    def _text(self, kind: Literal["thought", "text"], text: str) -> Iterator[Step]:
        if self._open is None or self._open.kind != kind:
            yield from self._close(whole=True)
            text = self._blank.get(kind, "") + text
            if not text.strip():
                self._blank[kind] = text  # Blanks between two calls, say: not worth a part of their own.
                return
            yield self._begin(Part(kind))
        yield self._grow(text)

    def _call(self, call: ToolCall) -> Iterator[Step]:
        if call.id:
            yield from self._close(whole=True)
            self._call_index = call.index or 0
            yield self._begin(Part("call", call.id, call.function.name or ""))
        if call.function.arguments:
            yield self._grow(call.function.arguments)

    def _begin(self, part: Part) -> Opened:
        self._open, self._any, self._blank = part, True, {}
        return Opened(part)

    def _grow(self, piece: str) -> Grown:
        assert self._open is not None
        logprobs = self._logprobs.take() if self._open.kind == "text" else []
        self._open.pieces.append(piece)
        self._open.logprobs += logprobs
        return Grown(self._open, piece, logprobs)

    def _close(self, whole: bool) -> Iterator[Step]:
        """`whole` holds for a text; of a call the output knows it."""
        if self._open is not None:
            self._open.whole = self._call_is_whole() if self._open.kind == "call" else whole
            yield Closed(self._open)
            self._open = None

    def _call_is_whole(self) -> bool:
        return self._call_index in self._output.finished_calls
