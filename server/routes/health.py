"""GET /health: 200 when requests are served, 503 with the reason when not."""

from fastapi import APIRouter, Response

from server.answers import encode_json
from server.serving import Serving


def routes(serving: Serving) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    async def health() -> Response:
        status, content = _state(serving)
        return Response(encode_json(content), status, media_type="application/json")

    return router


def _state(serving: Serving) -> tuple[int, dict[str, str | int]]:
    client = serving.client
    if client.failure is not None:
        return 503, {"status": "failed", "message": client.failure.message}
    if client.info is not None:
        return 200, {"status": "ok"}
    if client.progress is None:
        return 503, {"status": "loading", "message": "the engine is starting"}
    progress = client.progress
    return 503, {"status": "loading", "message": progress.text, "done": progress.done, "total": progress.total}
