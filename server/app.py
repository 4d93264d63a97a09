"""The FastAPI application."""

import contextlib
import hmac
import uuid
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import errors
from server.chat_format import ChatFormat
from server.engine_client import EngineClient
from server.errors import ErrorBody, encode_error
from server.model import ModelInfo
from server.routes import chat as chat_routes
from server.routes import completions, health, models
from server.serving import Serving


def create_app(client: EngineClient, chat: ChatFormat, model: ModelInfo, *, api_key: str | None = None) -> FastAPI:
    """The application over an engine. The client is started with the application and closed by whoever made it."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        client.start()
        yield

    app = FastAPI(title="g4jax", lifespan=lifespan)
    serving = Serving(client, chat, model)
    for family in (chat_routes, completions, models, health):
        app.include_router(family.routes(serving))
    errors.install(app)
    if api_key is not None:
        app.add_middleware(ApiKey, key=api_key)
    app.add_middleware(RequestId)
    return app


class ApiKey:
    """401 for requests under /v1 without the key."""

    def __init__(self, app: ASGIApp, key: str):
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1") or self._allowed(scope):
            return await self._app(scope, receive, send)
        body = encode_error(ErrorBody("wrong or missing API key", "invalid_request_error", code="invalid_api_key"))
        headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _allowed(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self._expected)


class RequestId:
    """Answers with the client's x-request-id, or with a new one."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given if 0 < len(given) <= 128 else uuid.uuid4().hex.encode()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        await self._app(scope, receive, send_with_id)
