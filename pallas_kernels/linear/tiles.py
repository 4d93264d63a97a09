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

GEMV_ELEMENTS = 2**25
"""Weights up to this size are read faster by the register form; beyond it the dot form's stages win."""

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
    """The tile for `rows` rows of N results of depth K; `normed`: the program norms its operand; `wide`: float32.

    Of the candidates those that were fastest on an H200 for E2B at one row and at eight (docs/performance.md).
    """
    if wide:
        return DotTile(32, fit(k, 32), 4, 2)
    if rows == 1 and not gated and n * k <= GEMV_ELEMENTS and (gemv := _gemv_tile(n, k, normed)) is not None:
        return gemv
    if n < 32 * 132:  # few programs: thin tiles, and deep ones while the operand fits the registers beside them
        if normed:
            return DotTile(16, fit(k, 256), 4, 4) if rows == 1 else DotTile(16, fit(k, 128), 4, 8)
        return DotTile(16, fit(k, 256), 2, 4) if 1 < rows <= 16 else DotTile(16, fit(k, 512), 4, 3)
    if gated or n < 64 * 528:
        return DotTile(32, fit(k, 128), 4, 4)
    return DotTile(64, fit(k, 128), 4, 4)


def _gemv_tile(n: int, k: int, normed: bool) -> GemvTile | None:
    """None where the segments of a row are not whole chunks, which makes for narrow loads."""
    if k <= 512:
        return GemvTile(8, 2) if k % 256 == 0 else None
    if normed:
        tile = GemvTile(1, 8) if n < 1024 else GemvTile(4, 2)
    else:
        tile = GemvTile(2, 4) if k <= 2048 else GemvTile(1, 8)
    return tile if k % (tile.segments * 128) == 0 else None


def fit(k: int, depth: int) -> int:
    """The largest power of two up to `depth` that divides k."""
    return min(depth, k & -k)
