"""A chat request on its way to the engine."""

import asyncio
import time
from dataclasses import dataclass

from g4jax.media.inputs import PlacedInput
from server import constraints, convert
from server.answers import Delta
from server.chat_output import ChatOutput, Wishes
from server.job import Job
from server.media import media_sources
from server.messages import MediaData
from server.schemas import ChatRequest
from server.serving import Serving

ChatJob = Job[ChatOutput, list[Delta]]


@dataclass(frozen=True)
class ChatPrompt:
    """`media`: what fills its placeholders, in order."""

    ids: list[int]
    media: tuple[PlacedInput, ...] = ()


async def template_ids(serving: Serving, body: ChatRequest) -> list[int]:
    """The prompt of a chat as the template writes it, one placeholder for each medium, and none of them is read.

    ApiError for one that cannot be written.
    """
    serving.check_model(body.model)
    messages, tools = convert.template_messages(body), convert.template_tools(body)
    return await asyncio.to_thread(serving.chat.encode_chat, messages, tools, convert.template_kwargs(body))


async def chat_prompt(serving: Serving, body: ChatRequest) -> ChatPrompt:
    """The prompt of a chat request with its media, be it longer than the context; errors as of `template_ids`."""
    sources = media_sources(body.messages, body.most_soft_tokens)
    if not sources:
        return ChatPrompt(await template_ids(serving, body))
    serving.check_model(body.model)  # before anything is fetched
    reading = asyncio.ensure_future(serving.media.read(sources))
    try:
        ids, media = await asyncio.gather(template_ids(serving, body), reading)
    finally:
        reading.cancel()
    return ChatPrompt(*await asyncio.to_thread(serving.chat.place, ids, media))


async def chat_job(serving: Serving, body: ChatRequest, request_id: str) -> ChatJob:
    """Checks the request against the model and makes its prompt; ApiError for what cannot be served."""
    convert.check_chat_supported(body, serving.chat.parse_tools)
    max_model_len = serving.engine().max_model_len
    prompt, tools = await chat_prompt(serving, body), convert.template_tools(body)
    prompt_ids = prompt.ids
    limit = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    max_tokens = getattr(body, limit)
    convert.check_length("messages", len(prompt_ids), limit, max_tokens, max_model_len)
    params = convert.sampling_params(body, serving.model, max_tokens)
    guide = await constraints.chat_guide(serving, body, tools, prompt_ids)
    n = body.n or 1
    adds = convert.engine_requests(
        request_id,
        [prompt_ids],
        params,
        n,
        serving.model,
        guides=[guide],
        media=[[MediaData.of(placed) for placed in prompt.media]],
        cache_salt=body.cache_salt,
    )
    outputs = [serving.chat.output(prompt_ids, tools, _wishes(body)) for _ in adds]
    return Job(request_id, int(time.time()), serving.model.names[0], adds, outputs, n)


def _wishes(body: ChatRequest) -> Wishes:
    return Wishes(
        stops=body.stop or (),
        min_tokens=body.min_tokens or 0,
        hide_reasoning=body.include_reasoning is False,
        join_reasoning=body.separate_reasoning is False,
        one_call=body.parallel_tool_calls is False or body.named_tool is not None,
        logprobs=body.num_logprobs,
        tokens_as_ids=bool(body.return_tokens_as_token_ids),
    )
