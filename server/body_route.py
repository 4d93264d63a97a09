"""How FastAPI calls the endpoints that answer prompts."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute


class BodyRoute(APIRoute):
    """Of an endpoint that takes the request and nothing else: no dependencies are looked for, on the way to each first
    token."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint
