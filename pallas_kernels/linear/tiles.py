"""How a product is cut into programs."""

from __future__ import annotations

from typing import NamedTuple


class DotTile(NamedTuple):
    """A program multiplies `rows` rows of the weight, `depth` columns at a time, `stages` of them in flight."""

    rows: int
    depth: int
    warps: int = 4
    stages: int = 4


class GemvTile(NamedTuple):
    """`programs` programs take turns at blocks of `rows` rows; a row is `segments` segments side by side."""

    rows: int
    segments: int
    warps: int = 8
    programs: int = 264


Tile = DotTile | GemvTile

DOT_CANDIDATES = (
    DotTile(16, 128, 4, 8),
    DotTile(16, 256, 2, 4),
    DotTile(16, 256, 4, 4),
    DotTile(16, 512, 4, 4),
    DotTile(32, 128, 4, 4),
    DotTile(32, 256, 4, 4),
    DotTile(64, 64, 4, 5),
    DotTile(64, 128, 4, 4),
    DotTile(128, 64, 4, 4),
)
GEMV_CANDIDATES = (GemvTile(1, 8), GemvTile(2, 4), GemvTile(4, 2), GemvTile(8, 2))


def choose_tile(n: int, k: int, *, rows: int, gated: bool, normed: bool, wide: bool) -> Tile:
    """The tile for `rows` rows of N results of depth K; `normed`: the program norms its operand; `wide`: float32."""
    if wide:
        return DotTile(32, fit(k, 32), 4, 2)
    if n < 32 * 132:  # few programs: thin tiles, and deep ones while the operand fits the registers beside them
        if normed and rows > 1:
            return DotTile(16, fit(k, 128), 4, 8)
        return DotTile(16, fit(k, 256), 4, 4) if normed else DotTile(16, fit(k, 512), 4, 3)
    if gated or n < 64 * 528:
        return DotTile(32, fit(k, 128), 4, 4)
    return DotTile(64, fit(k, 128), 4, 4)


def fit(k: int, depth: int) -> int:
    """The largest power of two up to `depth` that divides k."""
    return min(depth, k & -k)
