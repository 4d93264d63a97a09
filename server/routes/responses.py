"""POST /v1/responses, and what can be asked about a stored response."""

from fastapi import APIRouter, Request, Response

from server.answers import encode_json
from server.convert import new_id
from server.errors import invalid, unsupported
from server.openapi import described
from server.responses.answer import Deleted
from server.responses.answer import Response as Answer
from server.responses.chat_request import NAMES, chat_fields, check_supported
from server.responses.input_items import own_items, page
from server.responses.respond import begun, response_events, whole_response
from server.responses.schemas import ResponsesRequest
from server.responses.store import ResponseStore
from server.serving import Serving, read_body
from server.stream import unless_gone
from server.translate.job import translated_job
from server.translate.named_events import NamedEventStream


def routes(serving: Serving) -> APIRouter:
    router = APIRouter(prefix="/v1/responses")
    store = ResponseStore()

    @router.post("", openapi_extra=described(ResponsesRequest, streams=True))
    async def create(request: Request) -> Response:
        body = await read_body(request, ResponsesRequest)
        check_supported(body)
        past = () if body.previous_response_id is None else store.conversation(body.previous_response_id)
        own = own_items(body, store)
        job = await translated_job(serving, chat_fields(body, past, own), NAMES, new_id("resp_"))
        answer = begun(body, job)

        def keep(ended: Answer) -> None:
            if ended.store:
                store.keep(ended, [*past, *own])

        if body.stream:
            return NamedEventStream(response_events(serving, job, answer, keep))
        whole = await unless_gone(request.receive, whole_response(serving, job, answer, keep))
        return _json(b"" if whole is None else encode_json(whole))

    @router.get("/{response_id}")
    async def retrieve(response_id: str, request: Request) -> Response:
        if request.query_params.get("stream") == "true":
            raise unsupported("stream", "a stream of a stored response")
        return _json(store.get(response_id).answer)

    @router.delete("/{response_id}")
    async def delete(response_id: str) -> Response:
        store.delete(response_id)
        return _json(encode_json(Deleted(response_id)))

    @router.post("/{response_id}/cancel")
    async def cancel(response_id: str) -> Response:
        """Only a response in background mode could be cancelled; the others end with their connection."""
        store.get(response_id)
        raise invalid(None, "Cannot cancel a synchronous response.")

    @router.get("/{response_id}/input_items")
    async def input_items(response_id: str, request: Request) -> Response:
        return _json(encode_json(page(store.get(response_id).input, request.query_params)))

    return router


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
