"""Cuts packed sequences into tiles of queries, each of one sequence only."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int


class Tiles(NamedTuple):
    """Tile i covers up to `block` packed rows of one sequence. The number of tiles is static: ceil(T / block) + R."""

    sequence: Int[Array, " tiles"]
    """The tile's sequence; unused tiles, which stand last, name the last one."""
    first: Int[Array, " tiles"]
    """Its first packed row."""
    count: Int[Array, " tiles"]
    """Its rows; 0 for an unused tile."""


def cut(
    starts: Int[Array, " R"], lengths: Int[Array, " R"], num_rows: int, block: int, *, on_grid: bool = False
) -> Tiles:
    """The tiles of sequences that own `num_rows` packed rows at most, all together.

    They begin with a sequence; on a grid they also end at each multiple of `block`.
    """
    num_tiles = -(-num_rows // block) + lengths.shape[0]
    before = starts % block if on_grid else jnp.zeros_like(starts)  # rows of its first cell that are not its own
    tiles = jnp.where(lengths > 0, (before + lengths + block - 1) // block, 0)
    ends = jnp.cumsum(tiles)
    tile = jnp.arange(num_tiles, dtype=jnp.int32)
    found = jnp.sum(tile[:, None] >= ends, axis=1, dtype=jnp.int32)
    sequence = jnp.minimum(found, lengths.shape[0] - 1)
    begin = (tile - (ends - tiles)[sequence]) * block - before[sequence]
    skipped = jnp.maximum(begin, 0)
    count = jnp.maximum(jnp.minimum(lengths[sequence], begin + block) - skipped, 0)
    first = jnp.where(count > 0, starts[sequence] + skipped, 0)
    return Tiles(sequence, first.astype(jnp.int32), count.astype(jnp.int32))


def owned(starts: Int[Array, " R"], lengths: Int[Array, " R"], num_rows: int) -> Int[Array, " T"]:
    """1 for the rows that a sequence owns, 0 for the rows of nobody."""
    row = jnp.arange(num_rows, dtype=jnp.int32)[:, None]
    return jnp.any((row >= starts) & (row < starts + lengths), axis=1).astype(jnp.int32)
