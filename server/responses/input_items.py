"""The items of a request as the conversation has them, and the list of them that a client can ask for."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pydantic

from server.convert import new_id
from server.errors import from_validation, invalid, unsupported
from server.responses.answer import InputItems
from server.responses.schemas import Item, ItemReference, MessageItem, OtherItem, ResponsesRequest
from server.responses.store import ResponseStore

_PREFIXES = {"message": "msg_", "function_call": "fc_", "function_call_output": "fco_", "reasoning": "rs_"}


def own_items(body: ResponsesRequest, store: ResponseStore) -> list[Item]:
    """The items of the input, each with an id, references resolved."""
    if isinstance(body.input, str):
        return [MessageItem(id=new_id("msg_"), role="user", content=body.input)]
    items = []
    for i, item in enumerate(body.input):
        if isinstance(item, OtherItem):
            raise unsupported(f"input[{i}].type", f"an item of type {item.type!r}")
        if isinstance(item, ItemReference):
            item = store.item(item, f"input[{i}]")
        items.append(item if item.id else item.model_copy(update={"id": new_id(_PREFIXES[item.type])}))
    return items


class PageQuery(pydantic.BaseModel):
    """Which items a client asks for: those behind the id `after`."""

    after: str | None = None
    limit: int = pydantic.Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"


def page(items: Sequence[Item], query: Mapping[str, str]) -> InputItems:
    """The part of the items that the query of an address asks for; 400 for a wrong one."""
    try:
        wish = PageQuery.model_validate(dict(query))
    except pydantic.ValidationError as error:
        raise from_validation(error) from None
    ordered = list(items) if wish.order == "asc" else list(reversed(items))
    begin = 0
    if wish.after is not None:
        begin = next((i for i, item in enumerate(ordered, 1) if item.id == wish.after), -1)
        if begin < 0:
            raise invalid("after", f"there is no item {wish.after!r}")
    end = begin + wish.limit
    data = [_listed(item) for item in ordered[begin:end]]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return InputItems(data, first, last, has_more=end < len(ordered))


def _listed(item: Item) -> dict[str, Any]:
    listed = item.model_dump(exclude_none=True) | {"status": "completed"}
    if isinstance(item, MessageItem) and isinstance(item.content, str):
        kind = {"type": "output_text", "annotations": []} if item.role == "assistant" else {"type": "input_text"}
        listed["content"] = [kind | {"text": item.content}]
    return listed
