"""How the keys of a row are cut into tiles and splits."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Int

PROGRAMS = 264
"""Two programs on each of an H200's 132 SMs."""


@dataclasses.dataclass(frozen=True)
class Tiling:
    keys: int
    """Keys per tile."""
    splits: int
    """Programs that may share the keys of one row and KV head; a short row leaves some of them idle."""
    least: int
    """A program takes at least so many tiles before another one is used."""
    num_warps: int
    num_stages: int


def choose(rows: int, kv_heads: int, head_dim: int, itemsize: int, max_keys: int, window: int | None) -> Tiling:
    """The tiling for a batch shape. Context length is data, not shape: only the longest possible one is known here."""
    keys = 16 if head_dim * itemsize > 512 else 32
    most = -(-max_keys // keys)
    programs = rows * kv_heads
    if window is not None and window < max_keys:
        most = min(most, -(-window // keys) + 1)
        # A window is one fixed, short piece of work: no partial results once the rows alone fill the machine.
        splits = 1 if programs >= 96 else -(-PROGRAMS // programs)
    else:
        # Rows may differ in length by orders of magnitude, so a long one can always spread.
        # No more programs than fit at once: a second wave of a few costs as much as the first.
        splits = max(8, PROGRAMS // programs)
    return Tiling(
        keys=keys,
        splits=max(1, min(splits, most, 256)),
        least=max(1, min(programs // 16, 8)),
        num_warps=2 if keys == 16 else 4,
        num_stages=4 if keys == 16 else 3,
    )


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
    """The keys of a row and their division among the splits."""
    newest = count + ends.newest
    end = jnp.maximum(count + ends.cached, 0)
    first = jnp.zeros_like(end) if window is None else jnp.maximum(newest + 1 - window, 0)
    tile = first // tiling.keys
    tiles = jnp.maximum((end + tiling.keys - 1) // tiling.keys - tile, 0)
    per_split = jnp.maximum((tiles + tiling.splits - 1) // tiling.splits, tiling.least)
    active = jnp.maximum((tiles + per_split - 1) // per_split, 1)
    return Span(first, end, tile, tiles, per_split, jnp.where(newest < 0, 0, active))
