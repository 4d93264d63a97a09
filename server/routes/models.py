"""GET /v1/models and /v1/models/{id}."""

from fastapi import APIRouter, Response

from server.answers import Model, ModelList, encode_json
from server.serving import Serving


def routes(serving: Serving) -> APIRouter:
    router = APIRouter(prefix="/v1/models")

    @router.get("")
    async def models() -> Response:
        return _json(ModelList([_entry(serving, serving.model.names[0])]))

    @router.get("/{name:path}")
    async def model(name: str) -> Response:
        serving.check_model(name)
        return _json(_entry(serving, name))

    return router


def _entry(serving: Serving, name: str) -> Model:
    info = serving.client.info
    return Model(name, serving.model.created, serving.model.root, None if info is None else info.max_model_len)


def _json(answer: Model | ModelList) -> Response:
    return Response(encode_json(answer), media_type="application/json")
