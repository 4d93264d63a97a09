"""The attention layers of the released models."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    model: str
    kind: str
    num_heads: int
    kv_heads: int
    head_dim: int
    window: int | None
    k_eq_v: bool = False

    @property
    def columns(self) -> int:
        """Width of a q|k|v row."""
        return (self.num_heads + (1 if self.k_eq_v else 2) * self.kv_heads) * self.head_dim


PAGE_SIZE = 32

SHAPES: tuple[Shape, ...] = (
    Shape("E2B", "sliding", 8, 1, 256, 512),
    Shape("E2B", "full", 8, 1, 512, None),
    Shape("E4B", "sliding", 8, 2, 256, 512),
    Shape("E4B", "full", 8, 2, 512, None),
    Shape("26B-A4B", "sliding", 16, 8, 256, 1024),
    Shape("26B-A4B", "full", 16, 2, 512, None, k_eq_v=True),
    Shape("31B", "sliding", 32, 16, 256, 1024),
    Shape("31B", "full", 32, 4, 512, None, k_eq_v=True),
)
