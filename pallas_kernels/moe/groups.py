"""Sorts the slots (a slot is one choice of one row) by expert in one Pallas kernel (Triton)."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Int

CHUNK = 1024


class Groups(NamedTuple):
    """Slots in the order of their experts: those of expert e are `order[start[e] : start[e] + count[e]]`."""

    order: Any
    start: Any
    count: Any


def group(ids: Int[Array, " S"], num_experts: int, *, interpret: bool = False) -> Groups:
    """A stable counting sort, one program per expert. Ids outside 0 .. E-1 are left out: `order` ends unset."""
    num_slots = ids.shape[0]
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    shapes = [jax.ShapeDtypeStruct((size,), jnp.int32) for size in (num_slots, num_experts, num_experts)]
    chunk = min(CHUNK, pl.next_power_of_2(num_slots))
    order, start, count = pl.pallas_call(
        functools.partial(_kernel, chunk=chunk),
        grid=(num_experts,),
        in_specs=[anywhere],
        out_specs=[anywhere] * 3,
        out_shape=shapes,
        interpret=interpret,
        name="moe_group",
        compiler_params=plt.CompilerParams(num_warps=4, num_stages=1),
    )(ids)
    return Groups(order, start, count)


def _kernel(ids_ref, order_ref, start_ref, count_ref, *, chunk: int):
    expert, num_slots = pl.program_id(0), ids_ref.shape[0]

    def load(i):
        slot = i * chunk + lax.iota(jnp.int32, chunk)
        return slot, jnp.where(slot < num_slots, plt.load(ids_ref.at[jnp.minimum(slot, num_slots - 1)]), -1)

    def tally(i, carry):
        before, mine = carry
        _, ids = load(i)
        earlier = (ids >= 0) & (ids < expert)
        return before + jnp.sum(earlier.astype(jnp.int32)), mine + jnp.sum((ids == expert).astype(jnp.int32))

    def place(i, position):
        slot, ids = load(i)
        is_mine = ids == expert
        rank = jnp.cumsum(is_mine.astype(jnp.int32))
        plt.store(order_ref.at[jnp.where(is_mine, position + rank - 1, num_slots)], slot, mask=is_mine)
        return position + jnp.sum(is_mine.astype(jnp.int32))

    chunks = pl.cdiv(num_slots, chunk)
    start, count = lax.fori_loop(0, chunks, tally, (jnp.int32(0), jnp.int32(0)))
    plt.store(start_ref.at[expert], start)
    plt.store(count_ref.at[expert], count)
    lax.fori_loop(0, chunks, place, start)
