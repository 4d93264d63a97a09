"""A multipart form, read within limits."""

from typing import Any, TypeVar

import pydantic
from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from server.errors import from_validation, invalid
from server.serving import MAX_BODY_BYTES, body_stream

MAX_FIELDS = 64
MAX_FIELD_BYTES = 64 * 1024

FormT = TypeVar("FormT", bound=pydantic.BaseModel)


async def read_form(request: Request, kind: type[FormT]) -> FormT:
    """The form as `kind`; 400 names the field at fault, 413 is for too much.

    A field whose name ends in [] is a list without it, and of any other the last value counts.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise invalid(None, "the body must be a multipart/form-data form, with the sound as its file")
    parser = MultiPartParser(
        request.headers, body_stream(request), max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
    )
    parser.spool_max_size = MAX_BODY_BYTES  # Nothing of what strangers send touches the disk.
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise invalid(None, f"the form cannot be read: {error.message}") from None
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        content = await value.read() if isinstance(value, UploadFile) else value
        if name.endswith("[]"):
            fields.setdefault(name.removesuffix("[]"), []).append(content)
        else:
            fields[name] = content
    await form.close()
    try:
        return kind.model_validate(fields)
    except pydantic.ValidationError as error:
        raise from_validation(error) from None
