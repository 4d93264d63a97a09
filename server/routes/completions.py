"""POST /v1/completions: no template, one BOS in front."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request, Response
from msgspec import UNSET, UnsetType

from server import constraints, convert
from server.answers import TextChoice, TextCompletion, Usage, encode_json
from server.body_route import BodyRoute
from server.job import Job
from server.logprobs import TokenNames, prompt_logprobs
from server.openapi import described
from server.schemas import CompletionRequest
from server.serving import Serving, read_body
from server.stream import EventStream, unless_gone
from server.text_output import Echo, TextOutput, TextWishes

TextJob = Job[TextOutput, str]


def routes(serving: Serving) -> APIRouter:
    router = APIRouter(route_class=BodyRoute)

    @router.post("/v1/completions", openapi_extra=described(CompletionRequest, streams=True))
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
    max_tokens = convert.DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    raw = convert.prompt_texts_or_ids(body, serving.model)
    encode = serving.chat.encode_prompts
    # Long texts take a while; ids are taken as they are and wait for no thread.
    prompts = await asyncio.to_thread(encode, raw) if any(isinstance(prompt, str) for prompt in raw) else encode(raw)
    for ids in prompts:
        convert.check_length("prompt", len(ids), "max_tokens", max_tokens, max_model_len)
    # The engine draws at least one token; an output that wants none drops it.
    params = convert.sampling_params(body, serving.model, max(max_tokens, 1))
    guides = await constraints.completion_guides(serving, body, prompts)
    request_id, n = convert.new_id("cmpl-"), body.n or 1
    adds = convert.engine_requests(
        request_id, prompts, params, n, serving.model, guides=guides, cache_salt=body.cache_salt
    )
    wishes = [_wishes(serving, body, *prompt) for prompt in zip(raw, prompts, strict=True)]
    outputs = [TextOutput(serving.chat.tokenizer, wishes[index // n]) for index in range(len(adds))]
    return Job(request_id, int(time.time()), serving.model.names[0], adds, outputs, n)


def _wishes(serving: Serving, body: CompletionRequest, prompt: str | list[int], ids: list[int]) -> TextWishes:
    return TextWishes(
        stops=body.stop or (),
        min_tokens=body.min_tokens or 0,
        echo=Echo.of(serving.chat.tokenizer, prompt, ids) if body.echo else None,
        prompt_only=body.max_tokens == 0,
        logprobs=body.logprobs,
        tokens_as_ids=bool(body.return_tokens_as_token_ids),
    )


async def _answer(serving: Serving, job: TextJob, body: CompletionRequest) -> TextCompletion:
    texts = ["" for _ in job.outputs]
    async with aclosing(job.pieces(serving)) as pieces:
        async for index, piece in pieces:
            texts[index] += piece
    choices = [
        TextChoice(index, text, output.finish_reason, output.take_logprobs(), output.matched_stop)
        for index, (text, output) in enumerate(zip(texts, job.outputs, strict=True))
    ]
    if body.prompt_logprobs is not None:
        names = TokenNames(serving.chat.tokenizer, as_ids=bool(body.return_tokens_as_token_ids))
        for choice, add, output in zip(choices, job.adds, job.outputs, strict=True):
            told = output.prompt_logprobs or []
            choice.prompt_logprobs = prompt_logprobs(names, add.prompt_ids, told, body.prompt_logprobs)
    return TextCompletion(job.id, job.created, job.model, choices, job.usage())


async def _chunks(serving: Serving, job: TextJob, body: CompletionRequest) -> AsyncGenerator[TextCompletion, None]:
    """Log probabilities go with the first chunk that comes after their tokens did."""

    def chunk(choices: list[TextChoice], usage: Usage | None | UnsetType) -> TextCompletion:
        return TextCompletion(job.id, job.created, job.model, choices, usage)

    no_usage = None if body.wants_usage_chunk else UNSET
    async with aclosing(job.pieces(serving)) as pieces:
        async for index, piece in pieces:
            output = job.outputs[index]
            choice = TextChoice(index, piece, output.finish_reason)
            if choice.finish_reason is not None:
                choice.matched_stop = output.matched_stop
            if choice.text or choice.finish_reason is not None:
                choice.logprobs = output.take_logprobs()
                yield chunk([choice], job.usage() if body.wants_running_usage else no_usage)
    if body.wants_usage_chunk:
        yield chunk([], job.usage())
