"""POST /v1/completions: no template, one BOS in front."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request, Response
from msgspec import UNSET, UnsetType

from server import convert
from server.answers import TextChoice, TextCompletion, Usage, encode_json
from server.job import Job
from server.schemas import CompletionRequest
from server.serving import Serving, read_body
from server.stream import EventStream, unless_gone
from server.text_output import TextOutput

TextJob = Job[TextOutput, str]


def routes(serving: Serving) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/completions")
    async def completions(request: Request) -> Response:
        body = await read_body(request, CompletionRequest)
        job = await _job(serving, body)
        if body.stream:
            return EventStream(_chunks(serving, job, body))
        answer = await unless_gone(request.receive, _answer(serving, job, body))
        return Response(b"" if answer is None else encode_json(answer), media_type="application/json")

    return router


async def _job(serving: Serving, body: CompletionRequest) -> TextJob:
    serving.check_model(body.model)
    convert.check_completion_supported(body)
    max_model_len = serving.engine().max_model_len
    max_tokens = body.max_tokens or convert.DEFAULT_COMPLETION_TOKENS
    raw = convert.prompt_texts_or_ids(body, serving.model)
    prompts = await asyncio.to_thread(serving.chat.encode_prompts, raw)
    for ids in prompts:
        convert.check_length("prompt", len(ids), "max_tokens", max_tokens, max_model_len)
    params = convert.sampling_params(body, serving.model, max_tokens)
    request_id, n = convert.new_id("cmpl"), body.n or 1
    adds = convert.engine_requests(request_id, prompts, params, n, serving.model)
    outputs = [TextOutput(serving.chat.tokenizer, params.stop, params.min_tokens) for _ in adds]
    return Job(request_id, int(time.time()), serving.model.names[0], adds, outputs, n)


async def _answer(serving: Serving, job: TextJob, body: CompletionRequest) -> TextCompletion:
    texts = _echoes(serving, job, body)
    async with aclosing(job.pieces(serving)) as pieces:
        async for index, piece in pieces:
            texts[index] += piece
    choices = [
        TextChoice(index, text, output.finish_reason, matched_stop=output.matched_stop)
        for index, (text, output) in enumerate(zip(texts, job.outputs, strict=True))
    ]
    return TextCompletion(job.id, job.created, job.model, choices, job.usage())


async def _chunks(serving: Serving, job: TextJob, body: CompletionRequest) -> AsyncGenerator[TextCompletion, None]:
    def chunk(choices: list[TextChoice], usage: Usage | None | UnsetType) -> TextCompletion:
        return TextCompletion(job.id, job.created, job.model, choices, usage)

    no_usage = None if body.wants_usage_chunk else UNSET
    echoes = _echoes(serving, job, body)
    async with aclosing(job.pieces(serving)) as pieces:
        async for index, piece in pieces:
            choice = TextChoice(index, echoes[index] + piece, job.outputs[index].finish_reason)
            if choice.finish_reason is not None:
                choice.matched_stop = job.outputs[index].matched_stop
            if choice.text or choice.finish_reason is not None:
                echoes[index] = ""
                yield chunk([choice], job.usage() if body.wants_running_usage else no_usage)
    if body.wants_usage_chunk:
        yield chunk([], job.usage())


def _echoes(serving: Serving, job: TextJob, body: CompletionRequest) -> list[str]:
    """What each choice begins with: its prompt where the client wants it back."""
    return [serving.chat.tokenizer.decode(add.prompt_ids) if body.echo else "" for add in job.adds]
