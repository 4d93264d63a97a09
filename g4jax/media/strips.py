"""Lines of a picture divided among threads."""

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

MOST = 8
"""Strips of one picture."""


def in_strips(count: int, lines: int, work: Callable[[int, int], None]) -> None:
    """Calls `work` with the first and the last but one line of each of `count` strips, about equal ones.

    Its thread works as well, and does what the others have not begun when it comes to it: where several pictures are
    read at once, each of them waits for nobody but those that work for it.
    """
    edges = [lines * strip // count for strip in range(count + 1)]
    own, *rest = itertools.pairwise(edges)
    given = [(strip, _pool().submit(work, *strip)) for strip in rest]
    work(*own)
    for strip, future in reversed(given):  # The others take them from the front.
        if future.cancel():
            work(*strip)
        else:
            future.result()


def threads() -> int:
    """How many work at the strips of one picture."""
    return min(MOST, os.cpu_count() or 1)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(2 * MOST, os.cpu_count() or 1), "image")
