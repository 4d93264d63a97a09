"""The vision towers of the released models."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """N heads of size H."""

    num_heads: int
    head_dim: int


SHAPES = {"E2B": Shape(12, 64), "31B": Shape(16, 72)}
"""E4B's tower is E2B's, and the 26B-A4B's is the 31B's."""
