"""The mixture of experts of the released models."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """E experts of width F in a stream of width D; k are chosen per token."""

    num_experts: int
    width: int
    features: int
    k: int


SHAPES = {"26B-A4B": Shape(128, 2816, 704, 8)}
