"""The FastAPI application."""

import asyncio
import contextlib
import hmac
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import cast

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from g4jax import __version__
from g4jax.guide.spec import GuideSpec
from server import errors, openapi
from server.anthropic import errors as anthropic_errors
from server.chat_format import ChatFormat
from server.engine_client import EngineClient
from server.errors import ApiError
from server.media_reader import MediaReader
from server.metrics import Metrics
from server.model import ModelInfo
from server.routes import audio, completions, control, health, info, messages, metrics, models, responses, tokenize
from server.routes import chat as chat_routes
from server.serving import Serving

Refuse = Callable[[Request, Exception], Awaitable[Response]]

OPEN_PATHS = {"/health", "/metrics", "/version", "/docs", "/openapi.json"}
"""What needs no API key: it tells nothing of the requests, and monitors and browsers cannot send one."""


def create_app(
    client: EngineClient,
    chat: ChatFormat,
    model: ModelInfo,
    media: MediaReader,
    *,
    api_key: str | None = None,
    max_queued: int | None = None,
) -> FastAPI:
    """The application over an engine. The client is started with the application and closed by whoever made it.

    The vocabulary of the grammars is read meanwhile: it takes a second of everybody's time.
    max_queued: how many requests may wait for a place in the engine's batch; None: as many as come.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        client.start()
        reading = asyncio.create_task(asyncio.to_thread(serving.guides.start, GuideSpec()))
        yield
        await reading

    app = FastAPI(title="g4jax", version=__version__, lifespan=lifespan, redoc_url=None)
    serving = Serving(
        client,
        chat,
        model,
        media,
        Metrics(model.names[0], lambda: client.stats, lambda: client.cpu_seconds),
        max_queued,
    )
    conversations = (chat_routes, completions, responses, messages, audio)
    for family in (*conversations, tokenize, models, info, control, health, metrics):
        app.include_router(family.routes(serving), responses=openapi.errors())
    openapi.install(app)
    errors.install(app)
    anthropic_errors.install(app)
    if api_key is not None:
        app.add_middleware(ApiKey, key=api_key, refuse=cast(Refuse, app.exception_handlers[ApiError]))
    app.add_middleware(RequestId)
    return app


class ApiKey:
    """401 for requests without the key, but for OPEN_PATHS. The key comes as a bearer token, or as x-api-key."""

    def __init__(self, app: ASGIApp, key: str, refuse: Refuse):
        self._app = app
        self._key = key.encode()
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._allowed(scope):
            return await self._app(scope, receive, send)
        error = ApiError(HTTPStatus.UNAUTHORIZED, "wrong or missing API key", code="invalid_api_key")
        answer = await self._refuse(Request(scope), error)
        await answer(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        return hmac.compare_digest(given, self._key)


class RequestId:
    """Answers with the client's x-request-id, or with a new one, under OpenAI's name and Anthropic's."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given if 0 < len(given) <= 128 else uuid.uuid4().hex.encode()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id), (b"request-id", request_id)]
            await send(message)

        await self._app(scope, receive, send_with_id)
