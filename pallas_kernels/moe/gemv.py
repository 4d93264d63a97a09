"""The experts' two products of a few rows in registers: a warp loads all it needs of a weight's row at once.

Every slot (one choice of one row) reads its own expert; nothing is sorted. Loads of 16 bytes a thread, no loop: all of
a program's bytes are under way before its first multiplication.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int

from pallas_kernels.core import Unsupported
from pallas_kernels.linear.tiles import fit

ANYWHERE = pl.BlockSpec(memory_space=pl.ANY)
CHUNK = 256
"""Columns that a warp loads together."""
SEGMENT = 64
"""Columns of a slot among the CHUNK, where several slots are loaded together: 128 bytes."""


MAX_BYTES = 512
"""Of weights in the registers of a thread."""


class Warps(NamedTuple):
    """A program makes `rows` results with `warps` warps."""

    rows: int
    warps: int

    def params(self) -> plt.CompilerParams:
        return plt.CompilerParams(num_warps=self.warps, num_stages=1)


def choose(width: int, features: int, k: int, dtype: jnp.dtype) -> tuple[Warps, Warps]:
    """Of `gate_up` and `down_combine`, a warp for each result; raises Unsupported where the registers are too few."""
    depth = max(2 * width, pl.next_power_of_2(k) * features)
    if min(fit(width, CHUNK), fit(features, SEGMENT)) < 16:
        raise Unsupported(f"{width} or {features} is no multiple of 16.")
    if depth * jnp.dtype(dtype).itemsize > 32 * MAX_BYTES:
        raise Unsupported(f"{depth} columns of {dtype} do not fit the registers of a warp.")
    return Warps(4, 4), Warps(2, 2)


def gate_up(
    u: Float[Array, "R D"],
    ids: Int[Array, "R k"],
    weight: Float[Array, "E G D"],
    tile: Warps,
    *,
    interpret: bool = False,
) -> Float[Array, "S F"]:
    """gelu(gate u) * (up u) of every slot, in the order of the slots. Of slots without an expert here it is zero."""
    num_slots, features = ids.size, weight.shape[1] // 2
    return pl.pallas_call(
        functools.partial(_gate_up_kernel, rows=tile.rows),
        grid=(features // tile.rows, num_slots),
        in_specs=[ANYWHERE] * 3,
        out_specs=ANYWHERE,
        out_shape=jax.ShapeDtypeStruct((num_slots, features), u.dtype),
        interpret=interpret,
        name="moe_gate_up_gemv",
        compiler_params=tile.params(),
    )(u, ids, weight)


def down_combine(
    h: Float[Array, "S F"],
    weights: Float[Array, "R k"],
    ids: Int[Array, "R k"],
    weight: Float[Array, "E D F"],
    tile: Warps,
    *,
    interpret: bool = False,
) -> Float[Array, "R D"]:
    """The weighted sum over each row's slots of down h."""
    return pl.pallas_call(
        functools.partial(_down_combine_kernel, rows=tile.rows),
        grid=(weight.shape[1] // tile.rows, ids.shape[0]),
        in_specs=[ANYWHERE] * 4,
        out_specs=ANYWHERE,
        out_shape=jax.ShapeDtypeStruct((ids.shape[0], weight.shape[1]), h.dtype),
        interpret=interpret,
        name="moe_down_gemv",
        compiler_params=tile.params(),
    )(h, weights, ids, weight)


def _gate_up_kernel(u_ref: Any, ids_ref: Any, weight_ref: Any, h_ref: Any, *, rows: int) -> None:
    num_experts, features, width = weight_ref.shape[0], weight_ref.shape[1] // 2, weight_ref.shape[2]
    slot, k = pl.program_id(1), ids_ref.shape[1]
    row = lax.div(slot, k)
    expert = plt.load(ids_ref.at[row, lax.rem(slot, k)])
    here = (expert >= 0) & (expert < num_experts)
    feature = pl.program_id(0) * rows + lax.iota(jnp.int32, rows)
    chunk = fit(width, CHUNK)
    columns = [start + lax.iota(jnp.int32, chunk) for start in range(0, width, chunk)]

    def load(first: int, column: Array) -> Float[Array, "N C"]:
        at = weight_ref.at[expert, first + feature[:, None], column[None]]
        return _load_weight(at, jnp.broadcast_to(here, (rows, chunk)), weight_ref.dtype)

    gates, ups = ([load(first, column) for column in columns] for first in (0, features))
    gate = up = jnp.zeros((rows, chunk), jnp.float32)
    for column, gate_part, up_part in zip(columns, gates, ups, strict=True):
        # Every row of the tile loads it: its warp then has it without a barrier.
        x = plt.load(u_ref.at[row, jnp.broadcast_to(column[None], (rows, chunk))]).astype(jnp.float32)
        gate, up = gate + gate_part.astype(jnp.float32) * x, up + up_part.astype(jnp.float32) * x
    gate, up = jnp.sum(gate, axis=1), jnp.sum(up, axis=1)
    plt.store(h_ref.at[slot, feature], (jax.nn.gelu(gate, approximate=True) * up).astype(h_ref.dtype))


def _down_combine_kernel(
    h_ref: Any, weights_ref: Any, ids_ref: Any, weight_ref: Any, out_ref: Any, *, rows: int
) -> None:
    num_experts, _, width = weight_ref.shape
    row, k = pl.program_id(1), ids_ref.shape[1]
    slots, segment = pl.next_power_of_2(k), fit(width, SEGMENT)
    slot = lax.iota(jnp.int32, slots)
    place = jnp.minimum(slot, k - 1)
    ids = plt.load(ids_ref.at[row, place])
    here = (slot < k) & (ids >= 0) & (ids < num_experts)
    feature = pl.program_id(0) * rows + lax.iota(jnp.int32, rows)
    columns = [start + lax.iota(jnp.int32, segment) for start in range(0, width, segment)]
    shape = (rows, slots, segment)

    def load(column: Array) -> Float[Array, "N k C"]:
        at = weight_ref.at[ids[None, :, None], feature[:, None, None], column[None, None]]
        return _load_weight(at, jnp.broadcast_to(here[None, :, None], shape), weight_ref.dtype)

    parts = [load(column) for column in columns]
    total = jnp.zeros(shape, jnp.float32)
    for column, part in zip(columns, parts, strict=True):
        # Every row of the tile loads it: its warp then has it without a barrier.
        at = (jnp.broadcast_to((row * k + place)[None, :, None], shape), column[None, None])
        total += part.astype(jnp.float32) * plt.load(h_ref.at[at]).astype(jnp.float32)
    share = plt.load(weights_ref.at[row, place]).astype(jnp.float32)
    result = jnp.sum(jnp.where(here[None], jnp.sum(total, axis=2) * share[None], 0), axis=1)
    plt.store(out_ref.at[row, feature], result.astype(out_ref.dtype))


def _load_weight(at: Any, mask: Array, dtype: Any) -> Array:
    return plt.load(at, mask=mask, other=jnp.zeros((), dtype), eviction_policy="evict_first")
