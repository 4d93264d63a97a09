"""Where the rows of the slots lie once they are sorted by expert, one Pallas kernel (Triton).

A slot is one choice of one row. Every expert's rows begin at a multiple of `TILE` rows, so that a tile has one expert.
Instead of adding up the others' tiles, expert e begins at tile `start // TILE + e`, where `start` slots come before its
own: that leaves holes of up to a tile, which nobody reads or writes.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Int

from pallas_kernels.moe.groups import rank_slots, sort, tally

TILE = 64
"""Rows: what a warpgroup's tensor cores take."""


class Places(NamedTuple):
    """The row of every slot (of those with an expert here), and of every expert its first row and how many it has."""

    row: Any
    first: Any
    count: Any


def most_rows(num_slots: int, num_experts: int) -> int:
    """All rows, holes included."""
    return TILE * (pl.cdiv(num_slots, TILE) + num_experts - 1)


def place(ids: Int[Array, " S"], num_experts: int, *, interpret: bool = False) -> Places:
    """A stable counting sort. Rows of slots with ids outside 0 .. E-1 are left unset."""
    return Places(*sort(_kernel, ids, num_experts, name="moe_place", interpret=interpret))


def _kernel(ids_ref: Any, row_ref: Any, first_ref: Any, count_ref: Any, *, chunk: int) -> None:
    def write(slot: Array, rank: Array, is_mine: Array) -> None:
        plt.store(row_ref.at[jnp.where(is_mine, slot, row_ref.shape[0])], first + rank, mask=is_mine)

    expert = pl.program_id(0)
    start, count = tally(ids_ref, expert, chunk)
    first = (lax.div(start, TILE) + expert) * TILE
    plt.store(first_ref.at[expert], first)
    plt.store(count_ref.at[expert], count)
    rank_slots(ids_ref, expert, chunk, write)
