"""The responses that this process remembers, and the conversations that lead to them."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from server.answers import encode_json
from server.errors import ApiError, invalid
from server.responses.answer import FunctionCallItem, MessageItem, OutputItem, ReasoningItem, Response
from server.responses.schemas import FunctionCallItem as PastCall
from server.responses.schemas import Item, ItemReference
from server.responses.schemas import MessageItem as PastMessage
from server.responses.schemas import ReasoningItem as PastReasoning
from server.responses.schemas import ReasoningText as PastThought

MAX_RESPONSES = 4096
MAX_BYTES = 64 * 1024 * 1024
"""Counted as JSON, a conversation once for each of its responses."""


@dataclass(frozen=True)
class Stored:
    """`answer`: the response as JSON. `input`: all items before it, from the first one of the conversation."""

    answer: bytes
    input: tuple[Item, ...]
    output: tuple[Item, ...]
    size: int


class ResponseStore:
    """Forgets what was not used for the longest time when the bounds are reached."""

    def __init__(self, max_responses: int = MAX_RESPONSES, max_bytes: int = MAX_BYTES):
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._size = 0
        self._stored: OrderedDict[str, Stored] = OrderedDict()
        self._items: dict[str, Item] = {}

    def keep(self, response: Response, conversation: Sequence[Item]) -> None:
        """`conversation`: what led to the response."""
        answer, output = encode_json(response), tuple(_as_input(item) for item in response.output)
        size = len(answer) + sum(len(item.model_dump_json()) for item in conversation)
        self._stored[response.id] = Stored(answer, tuple(conversation), output, size)
        self._items |= {item.id: item for item in output if item.id}
        self._size += size
        while len(self._stored) > self._max_responses or self._size > self._max_bytes:
            self._forget(next(iter(self._stored)))

    def get(self, response_id: str) -> Stored:
        """404 for one that is not here (any more)."""
        if (stored := self._stored.get(response_id)) is None:
            raise ApiError(HTTPStatus.NOT_FOUND, f"Response with id {response_id!r} not found.")
        self._stored.move_to_end(response_id)
        return stored

    def delete(self, response_id: str) -> None:
        """404 as `get`."""
        self.get(response_id)
        self._forget(response_id)

    def conversation(self, response_id: str) -> tuple[Item, ...]:
        """All items up to the end of an earlier response; 404 as `get`, with a code that clients look for."""
        if response_id not in self._stored:
            message = f"Previous response with id {response_id!r} not found."
            code = "previous_response_not_found"
            raise ApiError(HTTPStatus.NOT_FOUND, message, param="previous_response_id", code=code)
        stored = self.get(response_id)
        return stored.input + stored.output

    def item(self, reference: ItemReference, param: str) -> Item:
        """The output item of a stored response; 400 for one that is not here."""
        if (item := self._items.get(reference.id)) is None:
            raise invalid(f"{param}.id", f"item with id {reference.id!r} not found")
        return item

    def _forget(self, response_id: str) -> None:
        stored = self._stored.pop(response_id)
        self._size -= stored.size
        for item in stored.output:
            self._items.pop(item.id or "", None)


def _as_input(item: OutputItem) -> Item:
    """An output item as the next request would send it."""
    match item:
        case MessageItem():
            return PastMessage(id=item.id, role="assistant", content="".join(part.text for part in item.content))
        case ReasoningItem():
            thoughts = [PastThought(type="reasoning_text", text=part.text) for part in item.content]
            return PastReasoning(type="reasoning", id=item.id, content=thoughts)
        case FunctionCallItem():
            call = {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
            return PastCall(type="function_call", id=item.id, **call)
