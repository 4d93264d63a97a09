"""POST /v1/chat/completions."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from fastapi import APIRouter, Request, Response
from msgspec import UNSET

from server import convert
from server.answers import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChunkChoice,
    Delta,
    Function,
    Message,
    ToolCall,
    encode_json,
)
from server.body_route import BodyRoute
from server.chat_job import ChatJob, chat_job
from server.job import Output
from server.logprobs import TokenNames, prompt_logprobs
from server.openapi import described
from server.schemas import ChatRequest
from server.serving import Serving, read_body
from server.stream import EventStream, unless_gone


def routes(serving: Serving) -> APIRouter:
    router = APIRouter(route_class=BodyRoute)

    @router.post("/v1/chat/completions", openapi_extra=described(ChatRequest, streams=True))
    async def chat_completions(request: Request) -> Response:
        body = await read_body(request, ChatRequest)
        job = await chat_job(serving, body, convert.new_id("chatcmpl-"))
        if body.stream:
            return EventStream(_chunks(serving, job, body))
        answer = await unless_gone(request.receive, _answer(serving, job, body))
        return Response(b"" if answer is None else encode_json(answer), media_type="application/json")

    return router


async def _answer(serving: Serving, job: ChatJob, body: ChatRequest) -> ChatCompletion:
    drafts = [Draft() for _ in job.outputs]
    async with aclosing(job.pieces(serving)) as pieces:
        async for index, deltas in pieces:
            for delta in deltas:
                drafts[index].add(delta)
    choices = [
        ChatChoice(
            index,
            draft.message(output.finished_calls),
            output.finish_reason,
            output.matched_stop,
            output.take_logprobs(),
        )
        for index, (draft, output) in enumerate(zip(drafts, job.outputs, strict=True))
    ]
    answer = ChatCompletion(job.id, job.created, job.model, choices, job.usage())
    told = job.outputs[0].prompt_logprobs
    if body.prompt_logprobs is not None and told is not None:
        names = TokenNames(serving.chat.tokenizer, as_ids=bool(body.return_tokens_as_token_ids))
        answer.prompt_logprobs = prompt_logprobs(names, job.adds[0].prompt_ids, told, body.prompt_logprobs)
    return answer


async def _chunks(serving: Serving, job: ChatJob, body: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
    """The role, then the deltas, then the finish reason of each choice; at last the usage, if it is wanted.

    Log probabilities go with the first chunk that comes after their tokens did.
    """

    def chunk(
        index: int, delta: Delta, logprobs: ChatLogprobs | None = None, finish: Output | None = None
    ) -> ChatChunk:
        choice = ChunkChoice(index, delta, logprobs=logprobs)
        if finish is not None:
            choice.finish_reason, choice.matched_stop = finish.finish_reason, finish.matched_stop
        usage = job.usage() if body.wants_running_usage else None if body.wants_usage_chunk else UNSET
        return ChatChunk(job.id, job.created, job.model, [choice], usage)

    started: set[int] = set()
    headers = CallHeaders()
    async with aclosing(job.pieces(serving)) as pieces:
        async for index, deltas in pieces:
            output = job.outputs[index]
            if index not in started:
                started.add(index)
                yield chunk(index, Delta(role="assistant", content=""))
            for delta in deltas:
                if body.repeats_call_header:
                    headers.repeat(index, delta)
                yield chunk(index, delta, output.take_logprobs())
            if output.finish_reason is not None:
                yield chunk(index, Delta(), output.take_logprobs(), output)
    if body.wants_usage_chunk:
        yield ChatChunk(job.id, job.created, job.model, [], job.usage())


class CallHeaders:
    """Puts id, type and name of a call into each of its pieces."""

    def __init__(self) -> None:
        self._starts: dict[tuple[int, int], ToolCall] = {}

    def repeat(self, choice: int, delta: Delta) -> None:
        for piece in delta.tool_calls or []:
            assert isinstance(piece.index, int)
            start = self._starts.setdefault((choice, piece.index), piece)
            piece.id, piece.type, piece.function.name = start.id, start.type, start.function.name


@dataclass
class Draft:
    """A message that grows delta by delta."""

    content: str = ""
    reasoning: str = ""
    calls: dict[int, ToolCall] = field(default_factory=dict)

    def add(self, delta: Delta) -> None:
        if delta.content:
            self.content += delta.content
        if delta.reasoning:
            self.reasoning += delta.reasoning
        for piece in delta.tool_calls or []:
            assert isinstance(piece.index, int)
            if piece.index in self.calls:
                self.calls[piece.index].function.arguments += piece.function.arguments
            else:
                function = Function(piece.function.arguments, piece.function.name)
                self.calls[piece.index] = ToolCall(function, id=piece.id, type="function")

    def message(self, finished_calls: set[int]) -> Message:
        """Calls that were cut off are left out. Content is null only where there is something else."""
        calls = [call for index, call in self.calls.items() if index in finished_calls]
        content = self.content or (None if calls or self.reasoning else "")
        reasoning = self.reasoning or None
        return Message(content, reasoning, reasoning, calls or None)
