"""GET /version and /get_server_info: what runs here."""

import time
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Response

from g4jax import __version__
from server.answers import encode_json
from server.serving import Serving


def routes(serving: Serving) -> APIRouter:
    router = APIRouter()
    began_s = time.monotonic()

    @router.get("/version")
    async def own_version() -> Response:
        return _json({"version": __version__})

    @router.get("/get_server_info")
    @router.get("/server_info")
    async def server_info() -> Response:
        return _json(_facts(serving) | {"uptime_s": time.monotonic() - began_s})

    return router


def _facts(serving: Serving) -> dict[str, Any]:
    """SGLang's clients look for `internal_states`, one for each engine."""
    engine, stats = serving.engine(), serving.client.stats
    return {
        "version": __version__,
        "jax_version": version("jax"),
        "served_model_name": serving.model.names[0],
        "model_path": serving.model.root,
        "max_model_len": engine.max_model_len,
        "max_batch": engine.max_batch,
        "options": asdict(engine.options),
        "internal_states": [] if stats is None else [asdict(stats)],
    }


def _json(answer: dict[str, Any]) -> Response:
    return Response(encode_json(answer), media_type="application/json")
