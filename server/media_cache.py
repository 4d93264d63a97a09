"""Media that were made ready lately, so that the images of earlier turns cost nothing in the next."""

import threading
from collections import OrderedDict

from g4jax.media.inputs import MediaKind, Medium

MAX_BYTES = 2**28

Key = tuple[MediaKind, int | None, bytes]
"""What decides the result of reading a file: its kind, the most tokens that were asked for, its `content_digest`."""


class MediaCache:
    """Keeps up to `max_bytes` of what encoders take; what was not asked for longest goes first. Threads share it."""

    def __init__(self, max_bytes: int = MAX_BYTES):
        self._max_bytes = max_bytes
        self._bytes = 0
        self._media: OrderedDict[Key, Medium] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Medium | None:
        with self._lock:
            if key in self._media:
                self._media.move_to_end(key)
            return self._media.get(key)

    def put(self, key: Key, medium: Medium) -> None:
        with self._lock:
            if key in self._media or _size(medium) > self._max_bytes:
                return
            self._media[key] = medium
            self._bytes += _size(medium)
            while self._bytes > self._max_bytes:
                _, oldest = self._media.popitem(last=False)
                self._bytes -= _size(oldest)


def _size(medium: Medium) -> int:
    return sum(piece.data.nbytes for piece in medium.inputs)
