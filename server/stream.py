"""Server-sent events, and the end of a request whose client has gone."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Response
from msgspec import Struct
from starlette.types import Receive, Scope, Send

from server.answers import encode_json
from server.errors import ApiError, ErrorBody, encode_error

log = logging.getLogger("g4jax")

T = TypeVar("T")

DONE = b"data: [DONE]\n\n"


class EventStream(Response):
    """Sends each chunk as an event and [DONE] at the end.

    The head of the response goes out with the first chunk: an error before it is an ordinary error response, a later
    one is an event. The chunks' iterator is closed as soon as the client has gone.
    """

    media_type = "text/event-stream"
    end = DONE

    def __init__(self, chunks: AsyncGenerator[Struct, None]):
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await unless_gone(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        started = False
        try:
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    if not started:
                        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                        started = True
                    await _send_event(send, self.event(chunk))
        except Exception as error:
            if not started:
                raise
            await _send_event(send, _data(encode_error(_body(error))))
        await send({"type": "http.response.body", "body": self.end, "more_body": False})

    def event(self, chunk: Struct) -> bytes:
        return _data(encode_json(chunk))


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None when the client went away first; `work` is then cancelled."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_event(send: Send, event: bytes) -> None:
    await send({"type": "http.response.body", "body": event, "more_body": True})


def _data(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def _body(error: Exception) -> ErrorBody:
    if isinstance(error, ApiError):
        return error.body
    log.error("a stream failed", exc_info=error)
    return ErrorBody("internal error; the server's log has the cause", "server_error")
