"""The engine, the conversation format and the model, as the routes need them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

import pydantic
from fastapi import Request

from server.chat_format import ChatFormat
from server.engine_client import EngineClient, EngineDied, RequestRefused
from server.errors import ApiError, from_validation, invalid, unavailable
from server.messages import Add, EngineInfo, Update
from server.model import ModelInfo

MAX_BODY_BYTES = 64 * 1024 * 1024
ANY_MODEL = "default"
"""What SGLang's scripts send when they do not care."""

BodyT = TypeVar("BodyT", bound=pydantic.BaseModel)


@dataclass(frozen=True)
class Serving:
    """What a route works with."""

    client: EngineClient
    chat: ChatFormat
    model: ModelInfo

    def engine(self) -> EngineInfo:
        """The engine's facts; 503 when it is not ready or has died."""
        if self.client.failure is not None:
            raise unavailable(f"the engine has died: {self.client.failure.message}")
        if self.client.info is None:
            raise unavailable("the model is still loading")
        return self.client.info

    def check_model(self, name: str | None) -> None:
        """404 for a model that is not served here."""
        if name is not None and name != ANY_MODEL and name not in self.model.names:
            message = f"the model {name!r} does not exist; this server has {self.model.names[0]!r}"
            raise ApiError(HTTPStatus.NOT_FOUND, message, param="model", code="model_not_found")

    async def generate(self, requests: list[Add]) -> AsyncGenerator[Update, None]:
        """The updates of the requests; the engine's failures become answers of the API."""
        try:
            async with aclosing(self.client.generate(*requests)) as updates:
                async for update in updates:
                    yield update
        except RequestRefused as error:
            raise invalid(None, str(error)) from None
        except EngineDied as error:
            message = f"the engine has died: {error}"
            raise ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, message, code="engine_died") from None


async def read_body(request: Request, kind: type[BodyT]) -> BodyT:
    """The body as `kind`, whatever the content type says; 400 names the field at fault, 413 is for too much."""
    raw = bytearray()
    async for piece in request.stream():
        raw += piece
        if len(raw) > MAX_BODY_BYTES:
            raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {MAX_BODY_BYTES} bytes")
    try:
        return kind.model_validate_json(bytes(raw))
    except pydantic.ValidationError as error:
        raise from_validation(error) from None
