"""The refusals of /v1/messages in Anthropic's shape. Every other address keeps OpenAI's."""

from collections.abc import Awaitable, Callable
from typing import Literal, cast

import msgspec
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from server.answers import encode_json
from server.anthropic.answer import Error, ErrorDetails
from server.errors import ApiError

PREFIX = "/v1/messages"
OVERLOADED = 529
"""Anthropic's status for a server that cannot serve just now."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class _OpenAIBody(msgspec.Struct):
    error: ErrorDetails


class AnthropicErrorDetail(BaseModel):
    type: str
    message: str


class AnthropicError(BaseModel):
    """Every answer of these addresses that is not a success."""

    type: Literal["error"]
    error: AnthropicErrorDetail


Handler = Callable[[Request, Exception], Awaitable[Response]]


def install(app: FastAPI) -> None:
    """Gives the errors of these addresses their shape; call it behind `server.errors.install`."""
    for kind in (ApiError, HTTPException, Exception):
        app.add_exception_handler(kind, _by_address(cast(Handler, app.exception_handlers[kind])))


def anthropic_error(status: int, message: str) -> Error:
    """The error that Anthropic has for an HTTP status."""
    otherwise = "invalid_request_error" if status < 500 else "api_error"
    return Error(ErrorDetails(_TYPES.get(status, otherwise), message))


def reshaped(answer: Response) -> Response:
    """A refusal in OpenAI's shape, in Anthropic's."""
    message = msgspec.json.decode(answer.body, type=_OpenAIBody).error.message
    status = OVERLOADED if answer.status_code == 503 else answer.status_code
    kept = {name: value for name, value in answer.headers.items() if name not in ("content-length", "content-type")}
    body = encode_json(anthropic_error(answer.status_code, message))
    return Response(body, status, kept, media_type="application/json")


def _by_address(openai_shape: Handler) -> Handler:
    async def handler(request: Request, error: Exception) -> Response:
        answer = await openai_shape(request, error)
        return reshaped(answer) if request.url.path.startswith(PREFIX) else answer

    return handler
