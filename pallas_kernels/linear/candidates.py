"""The ways to compute a product that the benchmark compares."""

from __future__ import annotations

from typing import NamedTuple

from pallas_kernels.linear.shapes import Shape
from pallas_kernels.linear.tiles import MAX_NORM_ROWS, MAX_SPLITS, MIN_STEPS, PROCESSORS, DotTile, GemvTile, Tile, fit

FEW_ROWS = (
    DotTile(16, 128, 4, 8),
    DotTile(16, 256, 2, 4),
    DotTile(16, 256, 4, 4),
    DotTile(16, 512, 4, 4),
    DotTile(32, 128, 4, 4),
    DotTile(32, 256, 4, 3),
    DotTile(64, 64, 4, 5),
    DotTile(64, 128, 4, 4),
    DotTile(128, 64, 4, 4),
)
"""Up to 16 rows."""
MANY_ROWS = (
    DotTile(16, 128, 4, 4),
    DotTile(32, 128, 4, 3),
    DotTile(64, 64, 4, 4),
    DotTile(64, 128, 4, 3),
    DotTile(64, 128, 8, 3),
    DotTile(128, 64, 8, 3),
    DotTile(128, 64, 8, 4),
)
FEW_ROWS_SPLIT = (
    (DotTile(16, 256, 2, 4), 2 * PROCESSORS),
    (DotTile(32, 128, 4, 4), PROCESSORS),
    (DotTile(32, 128, 4, 4), 2 * PROCESSORS),
    (DotTile(64, 128, 4, 4), PROCESSORS),
    (DotTile(64, 128, 4, 4), 2 * PROCESSORS),
)
"""With the most programs that splits may make."""
MANY_ROWS_SPLIT = (
    (DotTile(64, 64, 4, 4), PROCESSORS),
    (DotTile(64, 64, 4, 4), 2 * PROCESSORS),
    (DotTile(64, 128, 4, 3), PROCESSORS),
    (DotTile(128, 64, 8, 4), PROCESSORS // 2),
    (DotTile(128, 64, 8, 4), PROCESSORS),
)
MANY_ROWS_WHOLE = (DotTile(32, 128, 4, 3), DotTile(64, 128, 4, 3))
"""Beside the split ones, for a result whose norm sums splits."""
GEMV = (
    GemvTile(1, 4),
    GemvTile(1, 8),
    GemvTile(1, 16),
    GemvTile(2, 4),
    GemvTile(2, 16),
    GemvTile(4, 2),
    GemvTile(8, 2),
)
MAX_GEMV_DEPTH = 4096
"""A deeper stream does not fit the registers of the one-row form."""


class Form(NamedTuple):
    """A way to compute a product: with a tile, else as the model does ("chosen") or as XLA does."""

    name: str
    tile: Tile | None = None
    fused: bool = False
    """The stream's norm runs inside the product; else it is its own launch."""


def forms(shape: Shape, rows: int, *, every: bool) -> list[Form]:
    """What is used, and if `every` all the candidates and XLA's own product."""
    if not every:
        return [Form("chosen")]
    tiles = _tiles(shape, rows)
    found = [Form("chosen"), Form("XLA")]
    if shape.normed and rows <= MAX_NORM_ROWS:
        found += [Form(f"fused {tile}", tile, fused=True) for tile in tiles]
    return found + [Form(str(tile), tile) for tile in tiles]


def _tiles(shape: Shape, rows: int) -> list[Tile]:
    sums = shape.summed and not (shape.normed and rows <= MAX_NORM_ROWS)
    if rows <= 16:
        whole, parted = FEW_ROWS, FEW_ROWS_SPLIT
    else:
        whole, parted = MANY_ROWS_WHOLE if sums else MANY_ROWS, MANY_ROWS_SPLIT
    tiles: list[Tile] = [_fitted(tile, shape.k) for tile in whole]
    if sums:
        tiles += [_split(_fitted(tile, shape.k), shape, programs) for tile, programs in parted]
    if rows == 1 and not (shape.normed and shape.k > MAX_GEMV_DEPTH):
        tiles += GEMV
    return list(dict.fromkeys(tiles))


def _fitted(tile: DotTile, k: int) -> DotTile:
    return tile._replace(depth=fit(k, tile.depth))


def _split(tile: DotTile, shape: Shape, programs: int) -> DotTile:
    """As many splits as make `programs` programs, as far as the depth allows."""
    blocks, steps = -(-shape.n // tile.rows), shape.k // tile.depth
    return tile._replace(splits=max(1, min(programs // blocks, steps // MIN_STEPS, MAX_SPLITS)))
