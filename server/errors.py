"""Every refusal in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

import logging
from http import HTTPStatus

import msgspec
from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

log = logging.getLogger("g4jax")

HEADERS: dict[int, dict[str, str]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "5"},
}
"""What goes along with a status."""

CONTEXT_EXCEEDED = "context_length_exceeded"


class ErrorBody(msgspec.Struct, frozen=True):
    """The inner object. `param` names the field of the request at fault."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ApiError(Exception):
    """An answer that is an error: its HTTP status and what the client is told."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None):
        super().__init__(message)
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.status = status
        self.body = ErrorBody(message, kind, param, code)


def invalid(param: str | None, message: str, code: str | None = None) -> ApiError:
    """400, naming the field."""
    return ApiError(HTTPStatus.BAD_REQUEST, f"{param}: {message}" if param else message, param=param, code=code)


def unsupported(param: str, what: str) -> ApiError:
    """400 for a feature of the API that this server does not have."""
    return invalid(param, f"{what} is not supported yet", code="unsupported_parameter")


def unavailable(message: str) -> ApiError:
    """503: the engine is not there (yet, or any more)."""
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message, code="engine_unavailable")


def encode_error(body: ErrorBody) -> bytes:
    return msgspec.json.encode({"error": body})


def from_validation(error: ValidationError) -> ApiError:
    """The first complaint of pydantic as a 400 that names the field."""
    first = error.errors(include_url=False)[0]
    param = _path((*first["loc"], *filter(None, [first.get("ctx", {}).get("param")])))
    value = first["input"]
    got = f", got {str(value)[:80]!r}" if isinstance(value, str | int | float) and param else ""
    if first["type"] == "json_invalid":
        return invalid(None, f"the body is not valid JSON: {first['msg']}")
    message = first["msg"]
    return invalid(param or None, message[:1].lower() + message[1:] + got)


def _path(location: tuple[int | str, ...]) -> str:
    """("messages", 0, "<parts>", "role") -> "messages[0].role"; pieces in <> are alternatives of a type, not fields."""
    path = ""
    for piece in location:
        if isinstance(piece, int):
            path += f"[{piece}]"
        elif not piece.startswith("<"):
            path += f".{piece}" if path else piece
    return path


def install(app: FastAPI) -> None:
    """Makes every exception of a route an answer in OpenAI's shape."""

    async def api_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return _answer(error.status, error.body, HEADERS.get(error.status))

    async def http_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers) if error.headers else None
        return _answer(error.status_code, ErrorBody(str(error.detail), "invalid_request_error"), headers)

    async def internal_error(_: Request, error: Exception) -> Response:
        log.error("a request failed", exc_info=error)
        return _answer(500, ErrorBody("internal error; the server's log has the cause", "server_error"))

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, internal_error)


def _answer(status: int, body: ErrorBody, headers: dict[str, str] | None = None) -> Response:
    return Response(encode_error(body), status, headers, media_type="application/json")
