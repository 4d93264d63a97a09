"""POST /tokenize, /detokenize and /apply-template: what the model reads, without asking it."""

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import UNSET, UnsetType
from pydantic import Discriminator, RootModel, Tag

from server import convert
from server.answers import encode_json
from server.body import Body
from server.chat_job import chat_prompt, template_ids
from server.openapi import described
from server.schemas import ChatRequest, TokenId
from server.serving import Serving, read_body


class TokenizePrompt(Body):
    """A raw prompt, as /v1/completions takes it. add_special_tokens false leaves the BOS out."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class TokenizeChat(ChatRequest):
    """Any body of /v1/chat/completions; its prompt counts."""

    return_token_strs: bool | None = None


def _kind(value: Any) -> str:
    return "<chat>" if isinstance(value, dict) and value.get("messages") is not None else "<prompt>"


class TokenizeRequest(RootModel):
    """POST /tokenize: a prompt or messages."""

    root: Annotated[
        Annotated[TokenizePrompt, Tag("<prompt>")] | Annotated[TokenizeChat, Tag("<chat>")], Discriminator(_kind)
    ]


class DetokenizeRequest(Body):
    """POST /detokenize."""

    model: str | None = None
    tokens: list[TokenId]


class Tokens(msgspec.Struct):
    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: list[str | None] | UnsetType = UNSET


class Prompt(msgspec.Struct):
    prompt: str


def routes(serving: Serving) -> APIRouter:
    router = APIRouter()
    tokenizer = serving.chat.tokenizer

    @router.post("/tokenize", openapi_extra=described(TokenizeRequest))
    @router.post("/v1/tokenize", openapi_extra=described(TokenizeRequest))
    async def tokenize(request: Request) -> Response:
        body = (await read_body(request, TokenizeRequest)).root
        serving.check_model(body.model)
        chat = isinstance(body, TokenizeChat)
        ids = (await chat_prompt(serving, body)).ids if chat else await _prompt_ids(serving, body)
        answer = Tokens(ids, len(ids), serving.engine().max_model_len)
        if body.return_token_strs:
            answer.token_strs = [tokenizer.id_to_token(token) for token in ids]
        return _json(answer)

    @router.post("/detokenize", openapi_extra=described(DetokenizeRequest))
    @router.post("/v1/detokenize", openapi_extra=described(DetokenizeRequest))
    async def detokenize(request: Request) -> Response:
        body = await read_body(request, DetokenizeRequest)
        serving.check_model(body.model)
        convert.check_token_ids("tokens", body.tokens, serving.model.vocab_size)
        return _json(await _text(serving, body.tokens))

    @router.post("/apply-template", openapi_extra=described(ChatRequest))
    async def apply_template(request: Request) -> Response:
        body = await read_body(request, ChatRequest)
        return _json(await _text(serving, await template_ids(serving, body)))

    return router


async def _prompt_ids(serving: Serving, body: TokenizePrompt) -> list[int]:
    tokenizer = serving.chat.tokenizer
    encode = tokenizer.encode_rendered if body.add_special_tokens is False else tokenizer.encode_prompt
    return await asyncio.to_thread(encode, body.prompt)


async def _text(serving: Serving, ids: list[int]) -> Prompt:
    """Control tokens are spelled out."""
    return Prompt(await asyncio.to_thread(serving.chat.tokenizer.decode, ids, skip_special_tokens=False))


def _json(answer: Tokens | Prompt) -> Response:
    return Response(encode_json(answer), media_type="application/json")
