"""POST /v1/messages and /v1/messages/count_tokens."""

from fastapi import APIRouter, Request, Response

from server import openapi
from server.answers import encode_json
from server.anthropic import errors
from server.anthropic.answer import TokenCount
from server.anthropic.chat_request import NAMES, chat_fields, prompt_fields
from server.anthropic.respond import message_events, whole_message
from server.anthropic.schemas import CountTokensRequest, MessagesRequest
from server.body_route import BodyRoute
from server.convert import new_id
from server.serving import Serving, read_body
from server.stream import unless_gone
from server.translate.job import count_prompt, translated_job
from server.translate.named_events import NamedEventStream


def routes(serving: Serving) -> APIRouter:
    refusals = openapi.errors(errors.AnthropicError, unavailable=errors.OVERLOADED)
    router = APIRouter(prefix=errors.PREFIX, responses=refusals, route_class=BodyRoute)

    @router.post("", openapi_extra=openapi.described(MessagesRequest, streams=True))
    async def messages(request: Request) -> Response:
        body = await read_body(request, MessagesRequest)
        job = await translated_job(serving, chat_fields(body), NAMES, new_id("msg_"))
        if body.stream:
            return NamedEventStream(message_events(serving, job))
        message = await unless_gone(request.receive, whole_message(serving, job))
        return Response(b"" if message is None else encode_json(message), media_type="application/json")

    @router.post("/count_tokens", openapi_extra=openapi.described(CountTokensRequest))
    async def count_tokens(request: Request) -> Response:
        body = await read_body(request, CountTokensRequest)
        count = TokenCount(await count_prompt(serving, prompt_fields(body), NAMES))
        return Response(encode_json(count), media_type="application/json")

    return router
