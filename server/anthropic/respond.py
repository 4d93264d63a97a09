"""A message from its beginning to its end, streamed or whole."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import msgspec

from server.anthropic.answer import (
    BlockDelta,
    BlockStart,
    BlockStop,
    ContentBlock,
    End,
    Event,
    InputJsonDelta,
    Message,
    MessageDelta,
    MessageStart,
    MessageStop,
    SignatureDelta,
    StopReason,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolUseBlock,
    Usage,
)
from server.anthropic.errors import anthropic_error
from server.serving import Serving
from server.translate.job import ChatJob
from server.translate.named_events import told
from server.translate.parts import Closed, Grown, Opened, Part, Step, steps


async def whole_message(serving: Serving, job: ChatJob) -> Message:
    """Calls that were cut off are left out: their input is no object."""
    content: list[ContentBlock] = []
    async with aclosing(steps(job, serving)) as parts:
        async for step in parts:
            if isinstance(step, Closed) and (step.part.kind != "call" or step.part.whole):
                content.append(_block(step.part))
    end = _end(job)
    return Message(job.id, job.model, content, Usage.of_job(job), end.stop_reason, end.stop_sequence)


async def message_events(serving: Serving, job: ChatJob) -> AsyncGenerator[Event, None]:
    """The first event comes with the first token: until then an error is raised, later it is an event."""
    index = -1
    started = False
    try:
        async with aclosing(steps(job, serving)) as parts:
            async for step in parts:
                if not started:
                    yield MessageStart(Message(job.id, job.model, [], Usage.of_job(job)))
                    started = True
                index += isinstance(step, Opened)
                for event in _events(step, index):
                    yield event
        yield MessageDelta(_end(job), Usage.of_job(job))
        yield MessageStop()
    except Exception as error:
        if not started:
            raise
        failure = told(error)
        yield anthropic_error(failure.status, failure.body.message)


def _events(step: Step, index: int) -> Iterator[Event]:
    match step:
        case Opened(part):
            yield BlockStart(index, _empty_block(part))
        case Grown(part, piece, _):
            yield BlockDelta(index, _delta(part, piece))
        case Closed(part):
            if part.kind == "thought":
                yield BlockDelta(index, SignatureDelta(""))
            yield BlockStop(index)


def _empty_block(part: Part) -> ContentBlock:
    if part.kind == "thought":
        return ThinkingBlock()
    return TextBlock() if part.kind == "text" else ToolUseBlock(part.call_id, part.name)


def _block(part: Part) -> ContentBlock:
    if part.kind == "thought":
        return ThinkingBlock(part.text)
    if part.kind == "text":
        return TextBlock(part.text)
    return ToolUseBlock(part.call_id, part.name, msgspec.Raw(part.text.encode()))


def _delta(part: Part, piece: str) -> TextDelta | ThinkingDelta | InputJsonDelta:
    if part.kind == "thought":
        return ThinkingDelta(piece)
    return TextDelta(piece) if part.kind == "text" else InputJsonDelta(piece)


def _end(job: ChatJob) -> End:
    output = job.outputs[0]
    if output.finish_reason == "stop" and isinstance(output.matched_stop, str):
        return End("stop_sequence", output.matched_stop)
    reasons: dict[str | None, StopReason] = {"length": "max_tokens", "tool_calls": "tool_use"}
    return End(reasons.get(output.finish_reason, "end_turn"), None)
