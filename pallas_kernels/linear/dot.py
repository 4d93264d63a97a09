"""Small-batch products on the tensor cores: the weight's tile is the left operand, the batch the right one."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Float

from pallas_kernels.linear.operand import Rows, Stream
from pallas_kernels.linear.reference import Activation, Columns, activate
from pallas_kernels.linear.tiles import DotTile


def dot_kernel(
    operand: Rows | Stream, w: Any, activation: Activation | None, times: Columns | None, out: Any, tile: DotTile
) -> None:
    """The body of a program: columns `program_id(0) * tile.rows` and on of `out` [R, N]; w is [N, K], gated [2N, K].

    With splits `out` is [S, R, N], and the program sums part `program_id(1)` of K.
    """
    rows, columns = out.shape[-2:]
    column = pl.program_id(0) * tile.rows + lax.iota(jnp.int32, tile.rows)
    inside = jnp.minimum(column, columns - 1)
    weight_rows = (inside, columns + inside) if activation == "gated" else (inside,)

    steps, chunk = w.shape[1] // tile.depth, lax.iota(jnp.int32, tile.depth)

    def step(i, carry):
        totals, state = carry
        k, following = i * tile.depth + chunk, jnp.minimum(i + 1, steps - 1) * tile.depth + chunk
        h, state = operand.chunk(k, following, state)
        loaded = [plt.load(w.at[row[:, None], k[None, :]]) for row in weight_rows]
        return tuple(total + _product(block, h) for total, block in zip(totals, loaded, strict=True)), state

    totals = (jnp.zeros((tile.rows, operand.batch), jnp.float32),) * len(weight_rows)
    first, end, place = _part(steps, tile.splits)
    totals, state = lax.fori_loop(first, end, step, (totals, operand.start(chunk)))
    scale = operand.scale(state)
    values = [(total if scale is None else total * scale).astype(out.dtype) for total in totals]

    row = lax.broadcasted_iota(jnp.int32, values[0].shape, 1)
    mask = (row < rows) & (column < columns)[:, None]
    index = (row, jnp.broadcast_to(column[:, None], row.shape))
    factor = None if times is None else load_columns(times, index, mask, columns)
    plt.store(out.at[(*place, *index)], activate(values, factor), mask=mask)


def _part(steps: int, splits: int) -> tuple[Any, Any, tuple[Any, ...]]:
    """The program's first step, the one after its last, and where its sum stands among the splits, if there are any."""
    if splits == 1:
        return 0, steps, ()
    split = pl.program_id(1)
    return split * steps // splits, (split + 1) * steps // splits, (split,)


def load_columns(times: Columns, index: tuple[Array, Array], mask: Array, columns: int) -> Array:
    """The elements of a kernel's `times`, so many columns wide, at (row, column)."""
    place = (index[0], plt.load(times.part.at[jnp.int32(0)]) * columns + index[1])
    ref: Any = times.array
    return plt.load(ref.at[place], mask=mask, other=jnp.zeros((), ref.dtype))


def _product(block: Float[Array, "N C"], h: Float[Array, "B C"]) -> Float[Array, "N B"]:
    """In full float32 for float32 operands."""
    precision = lax.Precision.HIGHEST if h.dtype == jnp.float32 else None
    dims = (((1,), (1,)), ((), ()))
    return lax.dot_general(block, h, dims, precision=precision, preferred_element_type=jnp.float32)
