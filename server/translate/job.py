"""A chat that was asked for in another API's words, and its errors back in those words."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pydantic

from server.chat_job import ChatJob, chat_job, chat_prompt
from server.errors import ApiError, from_validation
from server.schemas import ChatRequest
from server.serving import Serving

ORIGIN = "<origin>"
"""The key under which a part of a message says which field of the other API it was made of; a chat ignores it."""

_PART = re.compile(r"messages\[(\d+)\]\.content\[(\d+)\]")

FieldNames = Sequence[tuple[str, str]]
"""Pairs of a pattern for the path of a chat's field, and what the other API calls it."""


async def translated_job(serving: Serving, fields: dict[str, Any], names: FieldNames, request_id: str) -> ChatJob:
    """The job of a chat request with these fields; ApiError names those of the other API."""
    try:
        return await chat_job(serving, ChatRequest.model_validate(fields), request_id)
    except pydantic.ValidationError as error:
        raise _renamed(from_validation(error), fields, names) from None
    except ApiError as error:
        raise _renamed(error, fields, names) from None


async def count_prompt(serving: Serving, fields: dict[str, Any], names: FieldNames) -> int:
    """How many tokens the prompt of such a request has, be it longer than the context."""
    try:
        return len((await chat_prompt(serving, ChatRequest.model_validate(fields))).ids)
    except pydantic.ValidationError as error:
        raise _renamed(from_validation(error), fields, names) from None
    except ApiError as error:
        raise _renamed(error, fields, names) from None


def _renamed(error: ApiError, fields: dict[str, Any], names: FieldNames) -> ApiError:
    old = error.body.param or ""
    new = _origin(fields, old)
    if new is None:
        new = next((re.sub(pattern, name, old, count=1) for pattern, name in names if re.match(pattern, old)), old)
    if new != old:
        message = f"{new}: {error.body.message.removeprefix(f'{old}: ')}"
        error.body = msgspec.structs.replace(error.body, message=message, param=new)
    return error


def _origin(fields: dict[str, Any], path: str) -> str | None:
    """What the part of a message that `path` leads to was made of."""
    if (match := _PART.match(path)) is None:
        return None
    content = fields["messages"][int(match[1])]["content"]
    return content[int(match[2])].get(ORIGIN) if isinstance(content, list) else None
