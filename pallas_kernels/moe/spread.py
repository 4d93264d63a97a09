"""Copies each row of the stream to the places of its slots, and lists the blocks that the products work through."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int

from pallas_kernels.moe.places import TILE, Places, most_rows

COLUMNS = 256
"""Of a program, which is one warp: 16 bytes of bfloat16 a thread."""
BLOCK = 3
"""Tiles of a block: one expert's rows that read its weights together."""


class Plan(NamedTuple):
    """Of each block its expert, first row and number of tiles; `total` [1] blocks are set."""

    expert: Any
    first: Any
    tiles: Any
    total: Any


def spread(
    u: Float[Array, "R D"],
    ids: Int[Array, "R k"],
    places: Places,
    *,
    interpret: bool = False,
) -> tuple[Float[Array, "P D"], Plan]:
    """`u` in the order of the places (rows of no slot are left unset), and the plan."""
    (num_rows, k), width, num_experts = ids.shape, u.shape[1], places.count.shape[0]
    columns = min(COLUMNS, width & -width)
    blocks = num_rows * k // (TILE * BLOCK) + num_experts
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    spread_rows = jax.ShapeDtypeStruct((most_rows(num_rows * k, num_experts), width), u.dtype)
    plan = [jax.ShapeDtypeStruct((size,), jnp.int32) for size in (blocks, blocks, blocks, 1)]
    out = pl.pallas_call(
        functools.partial(_kernel, k=k, columns=columns),
        grid=(width // columns, num_rows),
        in_specs=[anywhere] * 5,
        out_specs=[anywhere] * 5,
        out_shape=[spread_rows, *plan],
        interpret=interpret,
        name="moe_spread",
        compiler_params=plt.CompilerParams(num_warps=1, num_stages=1),
    )(u, ids.reshape(-1), *places)
    return out[0], Plan(*out[1:])


def _kernel(
    u_ref: Any,
    ids_ref: Any,
    row_ref: Any,
    first_ref: Any,
    count_ref: Any,
    out_ref: Any,
    *plan: Any,
    k: int,
    columns: int,
) -> None:
    num_experts, row = count_ref.shape[0], pl.program_id(1)
    column = pl.program_id(0) * columns + lax.iota(jnp.int32, columns)
    values = plt.load(u_ref.at[row, column])
    for slot in range(k):
        expert = plt.load(ids_ref.at[row * k + slot])
        here = (expert >= 0) & (expert < num_experts)
        place = jnp.where(here, plt.load(row_ref.at[row * k + slot]), out_ref.shape[0])
        plt.store(out_ref.at[place, column], values, mask=jnp.broadcast_to(here, (columns,)))
    pl.when((pl.program_id(0) == 0) & (row == 0))(lambda: _list_blocks(first_ref, count_ref, Plan(*plan)))


def _list_blocks(first_ref: Any, count_ref: Any, plan: Plan) -> None:
    """Cuts every expert's tiles into as few blocks as there can be, of the same size but for the last."""
    num_experts, num_blocks = count_ref.shape[0], plan.expert.shape[0]
    expert = lax.iota(jnp.int32, pl.next_power_of_2(num_experts))
    known = jnp.minimum(expert, num_experts - 1)
    tiles = jnp.where(expert < num_experts, pl.cdiv(plt.load(count_ref.at[known]), TILE), 0)
    first = plt.load(first_ref.at[known])
    blocks = pl.cdiv(tiles, BLOCK)
    size = pl.cdiv(tiles, jnp.maximum(blocks, 1))
    before = jnp.cumsum(blocks) - blocks

    def write(i: Array, _: None) -> None:
        exists = i < blocks
        at = jnp.where(exists, before + i, num_blocks)
        plt.store(plan.expert.at[at], expert, mask=exists)
        plt.store(plan.first.at[at], first + i * size * TILE, mask=exists)
        plt.store(plan.tiles.at[at], jnp.minimum(size, tiles - i * size), mask=exists)

    lax.fori_loop(0, jnp.max(blocks), write, None)
    plt.store(plan.total.at[lax.iota(jnp.int32, 1)], jnp.broadcast_to(jnp.sum(blocks), (1,)))
