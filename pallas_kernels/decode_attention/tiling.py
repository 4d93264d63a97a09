"""How the keys of a row are cut into tiles and splits."""

import dataclasses

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

PROGRAMS = 264
"""Two programs on each of an H200's 132 SMs."""
MANY_PROGRAMS = 96
"""Rows times KV heads that fill the machine without splits."""


@dataclasses.dataclass(frozen=True)
class Tiling:
    keys: int
    """Keys per tile."""
    splits: int
    """Programs that may share the keys of one row and KV head; a short row leaves some of them idle."""
    least: int
    """So many tiles are worth another program."""
    num_warps: int
    num_stages: int


def choose(rows: int, kv_heads: int, head_dim: int, itemsize: int, max_keys: int, window: int | None) -> Tiling:
    """The tiling for a batch shape. Context length is data, not shape: only the longest possible one is known here."""
    programs, wide = rows * kv_heads, head_dim * itemsize > 512
    bounded = window is not None and window < max_keys
    tiling = _many_programs(programs, bounded) if programs >= MANY_PROGRAMS else _few_programs(programs, wide, bounded)
    most = -(-max_keys // tiling.keys)
    if window is not None:
        most = min(most, -(-window // tiling.keys) + 1)
    return dataclasses.replace(tiling, splits=max(1, min(tiling.splits, most, 256)))


def _few_programs(programs: int, wide: bool, bounded: bool) -> Tiling:
    # A window is one fixed, short piece of work. Elsewhere rows may differ in length by orders of magnitude, so a long
    # one can always spread; no more programs than fit at once: a second wave of a few costs as much as the first.
    splits = -(-PROGRAMS // programs) if bounded else max(8, PROGRAMS // programs)
    least = max(1, min(programs // 32, 8))
    return Tiling(16, splits, least, 2, 4) if wide else Tiling(32, splits, least, 4 if programs < 16 else 2, 3)


def _many_programs(programs: int, bounded: bool) -> Tiling:
    """Thin programs, three or four of them on an SM: while one waits for its own warps the others read."""
    if bounded:
        return Tiling(16, 2, 1, 2, 4) if programs <= 128 else Tiling(16, 2, 1, 1, 3)
    return Tiling(16, 8, 16, 1, 2) if programs <= 128 else Tiling(16, 4, 32, 1, 2)


@dataclasses.dataclass(frozen=True)
class Span:
    """The part of one row's cache that is read; traced values."""

    first: Int[Array, ""]
    """First visible key."""
    end: Int[Array, ""]
    """One past the last key in the cache that is read."""
    tile: Int[Array, ""]
    """First tile."""
    tiles: Int[Array, ""]
    per_split: Int[Array, ""]
    active: Int[Array, ""]
    """Splits that have work: at least one if the row is in use."""


@dataclasses.dataclass(frozen=True)
class Ends:
    """How a row's count (its length or its position) tells where its keys end."""

    newest: int
    """count + newest is the position of the query; -1 marks a padding row."""
    cached: int
    """count + cached is one past the last key that is read from the cache."""


def span_of(count: Int[Array, ""], ends: Ends, window: int | None, tiling: Tiling) -> Span:
    """The keys of a row and their division among the splits, as even as can be: the longest is what one waits for."""
    newest = count + ends.newest
    end = jnp.maximum(count + ends.cached, 0)
    first = jnp.zeros_like(end) if window is None else jnp.maximum(newest + 1 - window, 0)
    tile = lax.div(first, tiling.keys)
    tiles = jnp.maximum(_parts(end, tiling.keys) - tile, 0)
    wanted = jnp.clip(_parts(tiles, tiling.least), 1, tiling.splits)
    per_split = jnp.maximum(_parts(tiles, wanted), 1)
    active = jnp.maximum(_parts(tiles, per_split), 1)
    return Span(first, end, tile, tiles, per_split, jnp.where(newest < 0, 0, active))


def _parts(size: Int[Array, ""], part: Int[Array, ""] | int) -> Int[Array, ""]:
    """How many parts hold so much. `//` would look for signs, in every program before its first load."""
    return lax.div(size + (part - 1), part)
