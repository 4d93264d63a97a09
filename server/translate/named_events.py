"""Server-sent events with a name."""

import logging
from http import HTTPStatus

from msgspec import Struct

from server.answers import encode_json
from server.errors import ApiError
from server.stream import EventStream

log = logging.getLogger("g4jax")


class NamedEventStream(EventStream):
    """Sends each chunk, a tagged struct, as an event that has the tag for its name.

    There is no [DONE], and the chunks themselves tell of an error after the first of them.
    """

    end = b""

    def event(self, chunk: Struct) -> bytes:
        name = str(chunk.__struct_config__.tag).encode()
        return b"event: " + name + b"\ndata: " + encode_json(chunk) + b"\n\n"


def told(error: Exception) -> ApiError:
    """What the client hears of an error after the first event; the log hears of one that nobody has foreseen."""
    if isinstance(error, ApiError):
        return error
    log.error("a stream failed", exc_info=error)
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; the server's log has the cause")
