"""Strips of a picture divided among threads."""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

MOST = 8
"""Strips of one picture."""


def in_strips(count: int, work: Callable[[int], None]) -> None:
    """Calls `work` with 0 to `count` - 1.

    Its thread works as well, and does what the others have not begun when it comes to it: where several pictures are
    read at once, each of them waits for nobody but those that work for it.
    """
    given = [(strip, _pool().submit(work, strip)) for strip in range(1, count)]
    work(0)
    for strip, future in reversed(given):  # The others take them from the front.
        if future.cancel():
            work(strip)
        else:
            future.result()


def threads() -> int:
    """How many work at the strips of one picture."""
    return min(MOST, os.cpu_count() or 1)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(2 * MOST, os.cpu_count() or 1), "image")
