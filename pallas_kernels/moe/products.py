"""The experts' two products as Pallas kernels (Triton).

The weight tile is the left operand of every product and a tile of tokens the right one, so that even a single token
streams the weights through the asynchronous loads of a matrix product. Slots (one choice of one row) come in groups of
one expert: sorted by `groups.group`, or, for a few rows, each slot is its own group and nothing is sorted.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int

from pallas_kernels.moe.groups import Groups

ANYWHERE = pl.BlockSpec(memory_space=pl.ANY)


class Blocks(NamedTuple):
    """Sizes of one program: weight rows, depth of a tile, tokens, programs that share an expert's tokens."""

    rows: int
    depth: int
    tokens: int = 16
    chunks: int = 1
    warps: int = 4
    stages: int = 4

    def params(self) -> plt.CompilerParams:
        return plt.CompilerParams(num_warps=self.warps, num_stages=self.stages)


def gate_up(
    u: Float[Array, "R D"],
    ids: Int[Array, " S"],
    groups: Groups | None,
    weight: Float[Array, "E G D"],
    blocks: Blocks,
    *,
    interpret: bool = False,
) -> Float[Array, "S F"]:
    """gelu(gate u) * (up u) of every slot; row i belongs to slot `groups.order[i]`, or to slot i without groups."""
    num_slots, features = ids.shape[0], weight.shape[1] // 2
    operands = (u, ids, weight, *(groups or ()))
    return pl.pallas_call(
        functools.partial(_gate_up_kernel, blocks=blocks, slots_per_row=num_slots // u.shape[0]),
        grid=(blocks.chunks, features // blocks.rows, weight.shape[0] if groups else num_slots),
        in_specs=[ANYWHERE] * len(operands),
        out_specs=ANYWHERE,
        out_shape=jax.ShapeDtypeStruct((num_slots, features), u.dtype),
        interpret=interpret,
        name="moe_gate_up",
        compiler_params=blocks.params(),
    )(*operands)


def down(
    h: Float[Array, "S F"],
    groups: Groups,
    weight: Float[Array, "E D F"],
    blocks: Blocks,
    *,
    interpret: bool = False,
) -> Float[Array, "S D"]:
    """down h of every slot, in the order of the slots. Rows of slots in no group are left unset."""
    return pl.pallas_call(
        functools.partial(_down_kernel, blocks=blocks),
        grid=(blocks.chunks, weight.shape[1] // blocks.rows, weight.shape[0]),
        in_specs=[ANYWHERE] * 5,
        out_specs=ANYWHERE,
        out_shape=jax.ShapeDtypeStruct((h.shape[0], weight.shape[1]), h.dtype),
        interpret=interpret,
        name="moe_down",
        compiler_params=blocks.params(),
    )(h, weight, *groups)


def down_combine(
    h: Float[Array, "S F"],
    weights: Float[Array, "R k"],
    ids: Int[Array, "R k"],
    weight: Float[Array, "E D F"],
    blocks: Blocks,
    *,
    interpret: bool = False,
) -> Float[Array, "R D"]:
    """The weighted sum over each row's slots of down h. A program goes through all slots of a row: no second pass."""
    return pl.pallas_call(
        functools.partial(_down_combine_kernel, blocks=blocks),
        grid=(weight.shape[1] // blocks.rows, ids.shape[0]),
        in_specs=[ANYWHERE] * 4,
        out_specs=ANYWHERE,
        out_shape=jax.ShapeDtypeStruct((ids.shape[0], weight.shape[1]), h.dtype),
        interpret=interpret,
        name="moe_down_combine",
        compiler_params=blocks.params(),
    )(h, weights, ids, weight)


def _gate_up_kernel(u_ref, ids_ref, weight_ref, *rest, blocks: Blocks, slots_per_row: int):
    *groups, h_ref = rest
    num_experts, features, width = weight_ref.shape[0], weight_ref.shape[1] // 2, weight_ref.shape[2]
    chunk, member = pl.program_id(0), pl.program_id(2)
    feature = pl.program_id(1) * blocks.rows + lax.iota(jnp.int32, blocks.rows)
    if groups:
        expert, start, count = member, plt.load(groups[1].at[member]), plt.load(groups[2].at[member])
    else:
        expert, start = plt.load(ids_ref.at[member]), member
        count = ((expert >= 0) & (expert < num_experts)).astype(jnp.int32)

    def block(_, current):
        index, place = _places(current, start, count, blocks.tokens, h_ref.shape[0])
        row = (plt.load(groups[0].at[index]) if groups else index) // slots_per_row

        def step(j, sums):
            column = (j * blocks.depth + lax.iota(jnp.int32, blocks.depth))[None]
            x = plt.load(u_ref.at[row[:, None], column])
            gate = plt.load(weight_ref.at[expert, feature[:, None], column])
            up = plt.load(weight_ref.at[expert, features + feature[:, None], column])
            return sums[0] + _dot_transposed(gate, x), sums[1] + _dot_transposed(up, x)

        zeros = jnp.zeros((blocks.rows, blocks.tokens), jnp.float32)
        gate, up = lax.fori_loop(0, width // blocks.depth, step, (zeros, zeros))
        _store_columns(h_ref, place, feature, jax.nn.gelu(gate, approximate=True) * up)
        return current + blocks.chunks

    # Chunk c of a group takes its blocks c, c + chunks, ...
    lax.fori_loop(0, lax.div(pl.cdiv(count, blocks.tokens) - chunk + blocks.chunks - 1, blocks.chunks), block, chunk)


def _down_kernel(h_ref, weight_ref, order_ref, start_ref, count_ref, out_ref, *, blocks: Blocks):
    chunk, expert = pl.program_id(0), pl.program_id(2)
    feature = pl.program_id(1) * blocks.rows + lax.iota(jnp.int32, blocks.rows)
    start, count = plt.load(start_ref.at[expert]), plt.load(count_ref.at[expert])

    def block(_, current):
        index, place = _places(current, start, count, blocks.tokens, out_ref.shape[0])

        def step(j, total):
            column = (j * blocks.depth + lax.iota(jnp.int32, blocks.depth))[None]
            w = plt.load(weight_ref.at[expert, feature[:, None], column])
            return total + _dot_transposed(w, plt.load(h_ref.at[index[:, None], column]))

        zeros = jnp.zeros((blocks.rows, blocks.tokens), jnp.float32)
        total = lax.fori_loop(0, weight_ref.shape[2] // blocks.depth, step, zeros)
        slot = jnp.where(place < out_ref.shape[0], plt.load(order_ref.at[index]), out_ref.shape[0])
        _store_columns(out_ref, slot, feature, total)
        return current + blocks.chunks

    # Chunk c of a group takes its blocks c, c + chunks, ...
    lax.fori_loop(0, lax.div(pl.cdiv(count, blocks.tokens) - chunk + blocks.chunks - 1, blocks.chunks), block, chunk)


def _down_combine_kernel(h_ref, weights_ref, ids_ref, weight_ref, out_ref, *, blocks: Blocks):
    num_experts, _, width = weight_ref.shape
    row, k = pl.program_id(1), ids_ref.shape[1]
    feature = pl.program_id(0) * blocks.rows + lax.iota(jnp.int32, blocks.rows)
    slot = lax.iota(jnp.int32, blocks.tokens)
    ids = plt.load(ids_ref.at[row, jnp.minimum(slot, k - 1)])
    here = (slot < k) & (ids >= 0) & (ids < num_experts)
    rank = jnp.cumsum(here.astype(jnp.int32)) - 1
    steps = pl.cdiv(width, blocks.depth)

    def nth(i):
        """Slot and expert of step i, of those that are here."""
        is_it = here & (rank == lax.div(i, steps))
        return jnp.sum(jnp.where(is_it, slot, 0)), jnp.sum(jnp.where(is_it, ids, 0))

    # One flat loop over the slots' tiles keeps the loads streaming from slot to slot. Column c of the sum belongs to
    # slot c: the right operand is zero in every other row.
    def step(i, carry):
        total, (current, expert) = carry
        column = lax.rem(i, steps) * blocks.depth + lax.iota(jnp.int32, blocks.depth)
        inside = (column < width)[None]
        w = plt.load(
            weight_ref.at[expert, feature[:, None], column[None]],
            mask=jnp.broadcast_to(inside, (blocks.rows, blocks.depth)),
            other=0,
        )
        x = plt.load(
            h_ref.at[(row * k + jnp.minimum(slot, k - 1))[:, None], column[None]],
            mask=inside & (slot == current)[:, None],
            other=0,
        )
        return total + _dot_transposed(w, x), nth(i + 1)

    zeros = jnp.zeros((blocks.rows, blocks.tokens), jnp.float32)
    total, _ = lax.fori_loop(0, jnp.sum(here.astype(jnp.int32)) * steps, step, (zeros, nth(jnp.int32(0))))
    share = jnp.where(here, plt.load(weights_ref.at[row, jnp.minimum(slot, k - 1)]).astype(jnp.float32), 0)
    plt.store(out_ref.at[row, feature], jnp.sum(total * share[None], axis=1).astype(out_ref.dtype))


def _places(block, start, count, tokens: int, past_end: int):
    """Where in the sorted order the tokens of a group's block stand: to read (clamped) and to write."""
    member = block * tokens + lax.iota(jnp.int32, tokens)
    index = start + jnp.minimum(member, count - 1)
    return index, jnp.where(member < count, index, past_end)


def _store_columns(ref, row: Int[Array, " M"], column: Int[Array, " N"], values: Float[Array, "N M"]):
    """Stores a transposed tile; rows past the end are left out."""
    mask = jnp.broadcast_to((row < ref.shape[0])[None], values.shape)
    plt.store(ref.at[row[None], column[:, None]], values.astype(ref.dtype), mask=mask)


def _dot_transposed(w: Float[Array, "N K"], x: Float[Array, "M K"]) -> Float[Array, "N M"]:
    precision = lax.Precision.HIGHEST if w.dtype == jnp.float32 else None
    dimensions = (((1,), (1,)), ((), ()))
    return lax.dot_general(w, x, dimensions, precision=precision, preferred_element_type=jnp.float32)
