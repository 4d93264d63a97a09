"""Prefix reuse over both pools: which pages of which content a new request may share. No jax.

A page's key is a chained 128-bit hash, so equal keys mean equal tokens from the very start (and equal salt). A prefix
of n pages can be reused when the full pool still has all n of them and the sliding pool those that the next query sees.
"""

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from g4jax.cache.allocator import PagePool

Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class PrefixHit:
    """Pages that hold the first `length` tokens, in logical order; sliding pages behind the window are 0."""

    length: int
    sliding_pages: list[int]
    full_pages: list[int]


def first_needed_page(position: int, window: int, page_size: int) -> int:
    """Logical index of the first sliding page that the query at `position` sees: token j with j > position - window."""
    return max(0, position - window + 1) // page_size


def span_over(spans: Spans, position: int) -> tuple[int, int] | None:
    """The span that a cut between tokens `position - 1` and `position` would go through."""
    return next(((start, end) for start, end in spans if start < position < end), None)


def extend_keys(keys: list[bytes], content: list[int], page_size: int, *, spans: Spans = (), salt: bytes = b"") -> None:
    """Append the keys of the full pages of `content` that `keys` does not hold yet.

    `content` are token ids, and 64 bits of an image or a sound in place of each of its tokens. In a span a token's K/V
    depend on the whole span, so a page that ends inside one is named by the span's end as well.
    """
    for page in range(len(keys), len(content) // page_size):
        stop = (page + 1) * page_size
        span = span_over(spans, stop)
        beyond = span[1] - stop if span else 0
        above = keys[-1] if keys else xxhash.xxh3_128_digest(salt)
        own = array("q", content[stop - page_size : stop]).tobytes()
        keys.append(xxhash.xxh3_128_digest(above + struct.pack("<q", beyond) + own))


def find_prefix(
    keys: list[bytes], sliding: PagePool, full: PagePool, *, most: int, window: int, page_size: int, spans: Spans = ()
) -> PrefixHit:
    """The longest reusable prefix of at most `most` tokens that ends outside every span; nothing is held yet."""
    full_pages: list[int] = []
    sliding_pages: list[int] = []
    length = unbroken = 0
    for key in keys[: most // page_size]:
        page = full.find(key)
        if page is None:
            break
        full_pages.append(page)
        sliding_pages.append(sliding.find(key) or 0)
        unbroken = unbroken + 1 if sliding_pages[-1] else 0
        end = len(full_pages) * page_size
        seen = len(full_pages) - first_needed_page(end, window, page_size)
        if unbroken >= seen and not span_over(spans, end):
            length = end
    pages = length // page_size
    behind = first_needed_page(length, window, page_size)
    return PrefixHit(length, [0] * behind + sliding_pages[behind:pages], full_pages[:pages])
