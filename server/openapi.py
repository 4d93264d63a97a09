"""The description of the API at /openapi.json.

Routes read their bodies themselves, so each tells the kind of its body with `described`.
"""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

_REFERENCE = "#/components/schemas/"
_STREAM: dict[str, Any] = {"text/event-stream": {}}


class ErrorDetail(BaseModel):
    """`param` names the field of the request at fault."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """Every answer that is not a success."""

    error: ErrorDetail


def errors(kind: type[BaseModel] = ErrorAnswer, *, unavailable: int = 503) -> dict[int | str, dict[str, Any]]:
    """The `responses` of routes that refuse with a `kind`; `unavailable` is their status for a server that is busy."""
    texts = {
        400: "The request cannot be served as it is.",
        401: "The API key is missing or wrong.",
        404: "There is no such thing.",
        500: "The server is at fault.",
        unavailable: "The engine is loading, has died, or too many requests wait.",
    }
    return {status: {"model": kind, "description": text} for status, text in texts.items()}


def described(kind: type[BaseModel], *, streams: bool = False) -> dict[str, Any]:
    """The `openapi_extra` of a route whose body is a `kind`; `streams`: the answer may be a stream of events."""
    schema = kind.model_json_schema(ref_template=f"{_REFERENCE}{kind.__name__}.{{model}}")
    extra: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
    if streams:
        extra["responses"] = {"200": {"description": "Whole, or as events.", "content": _STREAM}}
    return extra


def described_form(kind: type[BaseModel]) -> dict[str, Any]:
    """As `described`, of a route that takes a multipart form and answers with JSON, text or a stream of events."""
    schema = kind.model_json_schema()
    content = {"text/plain": {}, "text/vtt": {}, **_STREAM}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}},
        "responses": {"200": {"description": "Whole, or as events.", "content": content}},
    }


def install(app: FastAPI) -> None:
    """Makes the description of the application whole."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _finish(plain())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi


def _finish(document: dict[str, Any]) -> None:
    """Moves the parts of the bodies to where they are referred to, and takes out what the framework only supposes."""
    for operation in _operations(document):
        operation["responses"].pop("422", None)  # Errors of validation are 400 here.
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        for name, part in body.pop("$defs", {}).items():
            document["components"]["schemas"][f"{body['title']}.{name}"] = part


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()
