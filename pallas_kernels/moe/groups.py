"""Sorts the slots (a slot is one choice of one row) by expert in one Pallas kernel (Triton)."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Int

CHUNK = 16384
"""Slots that a program looks at together: few turns, since each waits for memory."""
WARP_SLOTS = 1024
"""So many of them a warp, where that makes no fewer than four warps."""


class Groups(NamedTuple):
    """Slots in the order of their experts: those of expert e are `order[start[e] : start[e] + count[e]]`."""

    order: Any
    start: Any
    count: Any


def group(ids: Int[Array, " S"], num_experts: int, *, interpret: bool = False) -> Groups:
    """A stable counting sort. Ids outside 0 .. E-1 are left out: `order` ends unset."""
    return Groups(*sort(_kernel, ids, num_experts, name="moe_group", interpret=interpret))


def sort(
    kernel: Callable[..., None], ids: Int[Array, " S"], num_experts: int, *, name: str, interpret: bool
) -> Sequence[Array]:
    """One program of `kernel` per expert: what it makes of every slot, and two numbers of every expert."""
    num_slots = ids.shape[0]
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    chunk = min(CHUNK, pl.next_power_of_2(num_slots))
    return pl.pallas_call(
        functools.partial(kernel, chunk=chunk),
        grid=(num_experts,),
        in_specs=[anywhere],
        out_specs=[anywhere] * 3,
        out_shape=[jax.ShapeDtypeStruct((size,), jnp.int32) for size in (num_slots, num_experts, num_experts)],
        interpret=interpret,
        name=name,
        compiler_params=plt.CompilerParams(num_warps=max(4, chunk // WARP_SLOTS), num_stages=1),
    )(ids)


def _kernel(ids_ref: Any, order_ref: Any, start_ref: Any, count_ref: Any, *, chunk: int) -> None:
    def write(slot: Array, rank: Array, is_mine: Array) -> None:
        plt.store(order_ref.at[jnp.where(is_mine, start + rank, order_ref.shape[0])], slot, mask=is_mine)

    expert = pl.program_id(0)
    start, count = tally(ids_ref, expert, chunk)
    plt.store(start_ref.at[expert], start)
    plt.store(count_ref.at[expert], count)
    rank_slots(ids_ref, expert, chunk, write)


def tally(ids_ref: Any, expert: Array, chunk: int) -> tuple[Array, Array]:
    """How many slots go to the experts before this one, and how many to it."""

    def add(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        _, ids = _load(ids_ref, i, chunk)
        earlier = (ids >= 0) & (ids < expert)
        return carry[0] + jnp.sum(earlier.astype(jnp.int32)), carry[1] + jnp.sum((ids == expert).astype(jnp.int32))

    return lax.fori_loop(0, pl.cdiv(ids_ref.shape[0], chunk), add, (jnp.int32(0), jnp.int32(0)))


def rank_slots(ids_ref: Any, expert: Array, chunk: int, write: Callable[[Array, Array, Array], None]) -> None:
    """Calls `write` with slots, how many of this expert come before each, and which are this expert's."""

    def turn(i: Array, before: Array) -> Array:
        slot, ids = _load(ids_ref, i, chunk)
        is_mine = ids == expert
        write(slot, before + jnp.cumsum(is_mine.astype(jnp.int32)) - 1, is_mine)
        return before + jnp.sum(is_mine.astype(jnp.int32))

    lax.fori_loop(0, pl.cdiv(ids_ref.shape[0], chunk), turn, jnp.int32(0))


def _load(ids_ref: Any, i: Array, chunk: int) -> tuple[Int[Array, " C"], Int[Array, " C"]]:
    """The slots of chunk i and their ids, -1 past the end."""
    slot = i * chunk + lax.iota(jnp.int32, chunk)
    return slot, plt.load(ids_ref.at[slot], mask=slot < ids_ref.shape[0], other=-1)
