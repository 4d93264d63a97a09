"""The attention layers of the released models."""

from __future__ import annotations

from typing import NamedTuple

PAGE_SIZE = 32


class Shape(NamedTuple):
    """N query heads, K KV heads of size H; `window` is None for full attention."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    window: int | None


SHAPES = {
    "E2B-sliding": Shape(8, 1, 256, 512),
    "E2B-full": Shape(8, 1, 512, None),
    "E4B-sliding": Shape(8, 2, 256, 512),
    "E4B-full": Shape(8, 2, 512, None),
    "26B-A4B-sliding": Shape(16, 8, 256, 1024),
    "26B-A4B-full": Shape(16, 2, 512, None),
    "31B-sliding": Shape(32, 16, 256, 1024),
    "31B-full": Shape(32, 4, 512, None),
}
