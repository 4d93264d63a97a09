"""The engine, the conversation format and the model, as the routes need them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import TypeVar

import pydantic
from fastapi import Request

from g4jax.guide.guides import Guides
from server.chat_format import ChatFormat
from server.engine_client import EngineClient, EngineDied, RequestAborted, RequestRefused
from server.errors import ApiError, from_validation, invalid, unavailable
from server.media_reader import MediaReader
from server.messages import Add, EngineInfo, Update
from server.metrics import Metrics, RequestMeter
from server.model import ModelInfo

MAX_BODY_BYTES = 64 * 1024 * 1024
ANY_MODEL = "default"
"""What SGLang's scripts send when they do not care."""

BodyT = TypeVar("BodyT", bound=pydantic.BaseModel)


@dataclass(frozen=True)
class Serving:
    """What a route works with.

    max_queued: requests that may wait for a place in the engine's batch; None: as many as come.
    """

    client: EngineClient
    chat: ChatFormat
    model: ModelInfo
    media: MediaReader
    metrics: Metrics
    max_queued: int | None = None

    @cached_property
    def guides(self) -> Guides:
        """Checks grammars."""
        return Guides(self.chat.tokenizer, self.model.vocab_size, self.model.stop_ids)

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
        self._check_queue(len(requests))
        meters = {request.id: RequestMeter(self.metrics, request) for request in requests}
        outcome = "abort"  # So it is when the iterator is closed early.
        try:
            async with aclosing(self.client.generate(*requests)) as updates:
                async for update in updates:
                    meters[update.id].update(update)
                    yield update
            outcome = "stop"  # Those that the engine has not ended itself have met a stop text or the like.
        except RequestRefused as error:
            outcome = "refused"
            raise invalid(None, str(error)) from None
        except RequestAborted:
            # Neither 409 nor 5xx: clients send such a request again.
            raise ApiError(HTTPStatus.BAD_REQUEST, "the request was aborted", code="request_aborted") from None
        except EngineDied as error:
            outcome = "error"
            raise _died(error) from None
        finally:
            for meter in meters.values():
                meter.end(outcome)

    async def flush_cache(self) -> None:
        """Has the engine forget the prefixes that it could use again."""
        self.engine()
        try:
            await self.client.flush_cache()
        except EngineDied as error:
            raise _died(error) from None

    def _check_queue(self, num_new: int) -> None:
        """503 when the batch and the queue are full."""
        num_open = self.client.num_open
        if self.max_queued is not None and num_open >= self.engine().max_batch + self.max_queued:
            self.metrics.failures["overloaded"].inc(num_new)
            message = f"{num_open} requests are running or waiting already; try again later"
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message, code="overloaded")


async def read_body(request: Request, kind: type[BodyT]) -> BodyT:
    """The body as `kind`, whatever the content type says; 400 names the field at fault, 413 is for too much."""
    raw = bytearray()
    async for piece in body_stream(request):
        raw += piece
    try:
        return kind.model_validate_json(bytes(raw))
    except pydantic.ValidationError as error:
        raise from_validation(error) from None


async def body_stream(request: Request) -> AsyncGenerator[bytes, None]:
    """The body piece by piece; 413 for too much."""
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {MAX_BODY_BYTES} bytes")
        yield piece


def _died(error: EngineDied) -> ApiError:
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, f"the engine has died: {error}", code="engine_died")
