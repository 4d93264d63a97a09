"""How a product is cut into programs."""

from __future__ import annotations

from typing import NamedTuple


class DotTile(NamedTuple):
    """A program multiplies `rows` rows of the weight, `depth` columns at a time, `stages` of them in flight."""

    rows: int
    depth: int
    warps: int = 4
    stages: int = 4
    splits: int = 1
    """Programs that share the depth; with more than one each leaves a sum of its own."""


class GemvTile(NamedTuple):
    """`programs` programs take turns at blocks of `rows` rows; a row is `segments` segments side by side."""

    rows: int
    segments: int
    warps: int = 8
    programs: int = 264


Tile = DotTile | GemvTile

MAX_ROWS = 128
"""Above, a product is bound by arithmetic and XLA's own is as good."""
MAX_WHOLE_ROWS = 64
"""The same for a product that is not split: from here on XLA's own was faster for all of E2B's but the narrow ones."""
MAX_NORM_ROWS = 1
"""Above, every program repeating the norm costs more than one launch for it: E2B took 3.9 ms a step with four rows and
2.5 with eight, which were normed once."""
MAX_FLOAT32_ROWS = 64
"""The same for float32, which only the tests of a GPU and small models use."""

GEMV_ELEMENTS = 2**25
"""Weights up to this size are read faster by the register form; beyond it the dot form's stages win."""
GATED_GEMV_ELEMENTS = 2**23
"""The same for gate and up, each: the dense MLP of the 26B-A4B."""

DEEP = 4096
"""A stream so deep takes a program so many steps that large tiles are worth it at one row."""

PROCESSORS = 132
"""Of an H200."""
MIN_STEPS = 4
"""Steps of a split: fewer do not fill the stages."""
MAX_SPLITS = 12
"""A row of so many splits fits the registers of the norm that sums them."""
MAX_SPLIT_COLUMNS = 6144
"""A wider product keeps the device busy whole: q, k, v of 26B-A4B in two splits took 21.0 us, XLA's own
product and its sum 19.3."""
MIN_HEADS_DEPTH = 2048
"""From here on 17 to 64 rows of q, k, v are split (E4B, 64 rows: 12.8 -> 7.0 us). The gain of a shallower one (E2B:
8.4 -> 5.4) is about what the launch costs that sums them before attention; neither was timed in a step."""


def choose_tile(
    n: int, k: int, *, rows: int, gated: bool, normed: bool, wide: bool, split: bool = False
) -> Tile | None:
    """The tile for `rows` rows of N results of depth K; None: XLA's own product is used.

    `normed`: the program norms its operand; `wide`: float32; `split`: splits are welcome. Of the candidates those that
    were fastest on an H200 for E2B at one row, at eight and at a hundred (docs/experiments.md).
    """
    if rows > (MAX_FLOAT32_ROWS if wide else MAX_ROWS):
        return None
    if wide:
        return DotTile(32, fit(k, 32), 4, 2)
    # Fewer rows are normed by every program of the next product: it would sum each time.
    if split and rows > MAX_NORM_ROWS and n <= MAX_SPLIT_COLUMNS:
        tile = _split_tile(n, k, rows)
        if tile.splits > 1:
            return tile
    if rows > MAX_WHOLE_ROWS:
        return None
    return _few_rows(n, k, rows, gated, normed) if rows <= 16 else _many_rows(n, k, gated)


def _few_rows(n: int, k: int, rows: int, gated: bool, normed: bool) -> Tile:
    if rows == 1 and gated and not normed and n * k <= GATED_GEMV_ELEMENTS:
        return GemvTile(2, 4)
    if rows == 1 and not gated and n * k <= GEMV_ELEMENTS and (gemv := _gemv_tile(n, k, normed)) is not None:
        return gemv
    if rows == 1 and not (gated or normed) and n < 64 * PROCESSORS and not is_ragged(k, GemvTile(1, 8)):
        return GemvTile(1, 8)  # 31B's narrow products, too large for the first rule: tiles would be few
    if rows == 1 and normed and n * k > GEMV_ELEMENTS and k >= DEEP:
        return DotTile(64, fit(k, 128), 4, 4)
    # Few programs: thin tiles, and deep ones while the operand fits the registers beside them.
    if n < (64 if rows == 1 and not gated else 32) * PROCESSORS:
        return DotTile(16, fit(k, 256), 4, 4) if normed else DotTile(16, fit(k, 256), 2, 4)
    if gated or n < 64 * 4 * PROCESSORS:
        return DotTile(32, fit(k, 128), 4, 4)
    return DotTile(64, fit(k, 128), 4, 4)


def _gemv_tile(n: int, k: int, normed: bool) -> GemvTile | None:
    """None where the segments of a row are not whole chunks, the norm comes first and the weight is large."""
    if k <= 512:
        return GemvTile(8, 2) if k % 256 == 0 else None
    if normed:
        tile = GemvTile(1, 8) if n < 1024 else GemvTile(4, 2)
    else:
        tile = GemvTile(2, 4) if k <= 2048 else GemvTile(1, 8)
    if is_ragged(k, tile):
        if normed:
            return tile if n < 1024 else None
        return GemvTile(1, 16) if n < 1024 else GemvTile(4, 2)
    return tile


def _many_rows(n: int, k: int, gated: bool) -> DotTile:
    """Every program reads all the rows, so tiles of the weight are large wherever that leaves enough programs."""
    if n < 1024:
        return DotTile(16, fit(k, 128), 4, 4)
    if n >= 8192:
        return DotTile(128, fit(k, 64), 8, 4)
    return DotTile(64 if gated else 32, fit(k, 128), 4, 3)


def sums_heads(k: int, rows: int) -> bool:
    """Whether splits of q, k, v are welcome to those who read them: a kernel before attention has to sum them."""
    return rows > MAX_WHOLE_ROWS or (rows > 16 and k >= MIN_HEADS_DEPTH)


def _split_tile(n: int, k: int, rows: int) -> DotTile:
    """Large tiles of the weight; splits make up for their small number."""
    if rows <= 16:
        return split(DotTile(32, fit(k, 128), 4, 4), n, k, rows, 2 * PROCESSORS)
    large = split(DotTile(128, fit(k, 64), 8, 5), n, k, rows, PROCESSORS)
    if rows > 64 and -(-n // large.rows) * large.splits > PROCESSORS // 2:
        return large
    return split(DotTile(64, fit(k, 64), 4, 4), n, k, rows, 2 * PROCESSORS)


def split(tile: DotTile, n: int, k: int, rows: int, programs: int) -> DotTile:
    """The tile with as many splits as `programs` allow, none shorter than MIN_STEPS.

    The splits' sums, float32, are at most half as many bytes as the weight: they are written and read again.
    """
    most = min(programs // -(-n // tile.rows), k // tile.depth // MIN_STEPS, k // (4 * rows), MAX_SPLITS)
    return tile._replace(splits=max(1, most))


def is_ragged(k: int, tile: GemvTile) -> bool:
    """Segments are no whole chunks of 128 columns: some columns of the last are not there."""
    return k % (128 * tile.segments) != 0


def fit(size: int, most: int) -> int:
    """The largest power of two up to `most` that divides `size`."""
    return min(most, size & -size)
