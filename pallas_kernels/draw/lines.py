"""The best lines of a row: where its best tokens are. A line is 128 tokens.

XLA finds the largest of every line, one Pallas kernel (Triton) those lines whose largest are the largest.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int, UInt32

from pallas_kernels.core import Unsupported, launcher
from pallas_kernels.draw.reference import capped

LINE = 128
LINES = 64
"""They hold the 64 best tokens."""
PIECE = LINES * LINE
ANY = pl.BlockSpec(memory_space=pl.ANY)


def check_lines(logits: Float[Array, "B V"]) -> None:
    """Raises Unsupported where rows are no lines."""
    if logits.dtype != jnp.float32 or logits.shape[1] % LINE:
        raise Unsupported(f"{logits.shape[1]} {logits.dtype} logits a row")


def line_maxima(logits: Float[Array, "B V"], barred: tuple[int, ...]) -> Float[Array, "B C"]:
    """The largest of every line, without NaN and what is barred."""
    column = lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    is_out = functools.reduce(jnp.logical_or, (column == token for token in barred), jnp.isnan(logits))
    logits = jnp.where(is_out, -jnp.inf, logits)
    return jnp.max(logits.reshape(len(logits), -1, LINE), axis=-1)


@launcher("interpret")
def best_lines(
    maxima: Float[Array, "B C"], *, interpret: bool = False
) -> tuple[Int[Array, "B 64"], Float[Array, " B"], Float[Array, " B"]]:
    """The LINES lines with the largest maxima, ascending, numbers from C on where there are no more; the largest of
    all, and that of the lines left out."""
    rows = len(maxima)
    one = jax.ShapeDtypeStruct((rows,), jnp.float32)
    return pl.pallas_call(
        _lines_kernel,
        grid=(rows,),
        in_specs=[ANY],
        out_specs=[ANY] * 3,
        out_shape=(jax.ShapeDtypeStruct((rows, LINES), jnp.int32), one, one),
        compiler_params=plt.CompilerParams(num_warps=8, num_stages=1),
        interpret=interpret,
        name="best_lines",
    )(maxima)


def _lines_kernel(maxima_ref: Any, lines_ref: Any, top_ref: Any, next_ref: Any) -> None:
    row, count = pl.program_id(0), maxima_ref.shape[1]
    line = lax.iota(jnp.int32, max(LINES, pl.next_power_of_2(count)))
    value = plt.load(maxima_ref.at[row, line], mask=line < count, other=-jnp.inf)
    order = _ordered(value)

    def one_bit(step: Array, found: Array) -> Array:
        tried = found | (jnp.uint32(1) << (jnp.uint32(31) - step.astype(jnp.uint32)))
        return jnp.where(jnp.sum((order >= tried).astype(jnp.int32)) >= LINES, tried, found)

    last = lax.fori_loop(0, 32, one_bit, jnp.uint32(0))
    better, tied = order > last, order == last
    room = LINES - jnp.sum(better.astype(jnp.int32))
    chosen = better | (tied & (jnp.cumsum(tied.astype(jnp.int32)) <= room))
    place = jnp.where(chosen, jnp.cumsum(chosen.astype(jnp.int32)) - 1, LINES)
    plt.store(lines_ref.at[row, place], line, mask=chosen)
    plt.store(top_ref.at[row], jnp.max(value))
    plt.store(next_ref.at[row], jnp.max(jnp.where(chosen, -jnp.inf, value)))


def _ordered(x: Float[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Numbers that order as the floats do."""
    bits = lax.bitcast_convert_type(x, jnp.uint32)
    return jnp.where(x < 0, ~bits, bits | jnp.uint32(0x80000000))


def columns_of(lines_ref: Any, row: Array) -> Int[Array, " P"]:
    """In a kernel: the columns of a row's best lines, ascending; some are past the end where there are few lines."""
    slot = lax.iota(jnp.int32, PIECE)
    return plt.load(lines_ref.at[row, lax.div(slot, LINE)]) * LINE + lax.rem(slot, LINE)


def load_logits(logits_ref: Any, row: Array, column: Array, cap: float | None = None) -> Array:
    """In a kernel: logits of a row under their soft cap, -inf past its end and for NaN."""
    is_in = column < logits_ref.shape[1]
    x = plt.load(logits_ref.at[row, column], mask=is_in, other=0.0)
    return jnp.where(is_in & ~jnp.isnan(x), capped(x, cap), -jnp.inf)
