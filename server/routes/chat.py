"""POST /v1/chat/completions."""

import asyncio
import time
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
    ChunkChoice,
    Delta,
    Function,
    Message,
    ToolCall,
    encode_json,
)
from server.chat_output import ChatOutput, Wishes
from server.job import Job, Output
from server.schemas import ChatRequest
from server.serving import Serving, read_body
from server.stream import EventStream, unless_gone

ChatJob = Job[ChatOutput, list[Delta]]


def routes(serving: Serving) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        body = await read_body(request, ChatRequest)
        job = await _job(serving, body)
        if body.stream:
            return EventStream(_chunks(serving, job, body))
        answer = await unless_gone(request.receive, _answer(serving, job))
        return Response(b"" if answer is None else encode_json(answer), media_type="application/json")

    return router


async def _job(serving: Serving, body: ChatRequest) -> ChatJob:
    serving.check_model(body.model)
    convert.check_chat_supported(body, serving.chat.parse_tools)
    max_model_len = serving.engine().max_model_len
    messages, tools = convert.template_messages(body), convert.template_tools(body)
    kwargs = convert.template_kwargs(body)
    prompt_ids = await asyncio.to_thread(serving.chat.encode_chat, messages, tools, kwargs)
    limit = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    max_tokens = getattr(body, limit)
    convert.check_length("messages", len(prompt_ids), limit, max_tokens, max_model_len)
    params = convert.sampling_params(body, serving.model, max_tokens)
    wishes = Wishes(
        stops=params.stop,
        min_tokens=params.min_tokens,
        hide_reasoning=body.include_reasoning is False,
        join_reasoning=body.separate_reasoning is False,
        one_call=body.parallel_tool_calls is False,
    )
    request_id, n = convert.new_id("chatcmpl"), body.n or 1
    adds = convert.engine_requests(request_id, [prompt_ids], params, n, serving.model)
    outputs = [serving.chat.output(prompt_ids, tools, wishes) for _ in adds]
    return Job(request_id, int(time.time()), serving.model.names[0], adds, outputs, n)


async def _answer(serving: Serving, job: ChatJob) -> ChatCompletion:
    drafts = [Draft() for _ in job.outputs]
    async with aclosing(job.pieces(serving)) as pieces:
        async for index, deltas in pieces:
            for delta in deltas:
                drafts[index].add(delta)
    choices = [
        ChatChoice(index, draft.message(output.finished_calls), output.finish_reason, output.matched_stop)
        for index, (draft, output) in enumerate(zip(drafts, job.outputs, strict=True))
    ]
    return ChatCompletion(job.id, job.created, job.model, choices, job.usage())


async def _chunks(serving: Serving, job: ChatJob, body: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
    """The role, then the deltas, then the finish reason of each choice; at last the usage, if it is wanted."""

    def chunk(index: int, delta: Delta, finish: Output | None = None) -> ChatChunk:
        choice = ChunkChoice(index, delta)
        if finish is not None:
            choice.finish_reason, choice.matched_stop = finish.finish_reason, finish.matched_stop
        usage = job.usage() if body.wants_running_usage else None if body.wants_usage_chunk else UNSET
        return ChatChunk(job.id, job.created, job.model, [choice], usage)

    started: set[int] = set()
    async with aclosing(job.pieces(serving)) as pieces:
        async for index, deltas in pieces:
            if index not in started:
                started.add(index)
                yield chunk(index, Delta(role="assistant", content=""))
            for delta in deltas:
                yield chunk(index, delta)
            if job.outputs[index].finish_reason is not None:
                yield chunk(index, Delta(), job.outputs[index])
    if body.wants_usage_chunk:
        yield ChatChunk(job.id, job.created, job.model, [], job.usage())


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
