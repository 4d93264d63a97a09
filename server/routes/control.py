"""POST /flush_cache and /abort_request: for who runs the server."""

from http import HTTPStatus
from typing import Self

from fastapi import APIRouter, Request, Response
from pydantic import model_validator

from server.answers import encode_json
from server.body import Body, wrong
from server.errors import ApiError
from server.openapi import described
from server.serving import Serving, read_body


class AbortRequest(Body):
    """POST /abort_request. rid: the id of the answer, such as chatcmpl-… in the chunks of its stream."""

    rid: str | None = None
    abort_all: bool | None = None

    @model_validator(mode="after")
    def _one_or_all(self) -> Self:
        if self.rid is None and not self.abort_all:
            raise wrong("rid", "is missing; give the id of an answer, or abort_all")
        return self


def routes(serving: Serving) -> APIRouter:
    router = APIRouter()

    @router.get("/flush_cache")
    @router.post("/flush_cache")
    async def flush_cache() -> Response:
        await serving.flush_cache()
        return _success()

    @router.post("/abort_request", openapi_extra=described(AbortRequest))
    async def abort_request(request: Request) -> Response:
        body = await read_body(request, AbortRequest)
        if not serving.client.end_answer(None if body.abort_all else body.rid) and not body.abort_all:
            message = f"no request with the id {body.rid!r} is running"
            raise ApiError(HTTPStatus.NOT_FOUND, message, param="rid", code="request_not_found")
        return _success()

    return router


def _success() -> Response:
    return Response(encode_json({"success": True}), media_type="application/json")
