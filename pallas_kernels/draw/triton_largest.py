"""The largest logits of a row, one Pallas kernel (Triton) after the best lines are known: one program per row."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int

from pallas_kernels.core import Unsupported, launcher
from pallas_kernels.draw.lines import ANY, LINES, best_lines, check_lines, columns_of, line_maxima, load_logits


@launcher("count", "interpret")
def largest(
    logits: Float[Array, "B V"], count: int, *, interpret: bool = False
) -> tuple[Int[Array, "B N"], Float[Array, "B N"]]:
    """See `api.largest`. Raises Unsupported for what is not its own."""
    check_lines(logits)
    if not 0 < count <= LINES:
        raise Unsupported(f"{count} of each row")
    lines, *_ = best_lines(line_maxima(logits, ()), interpret=interpret)
    shape = len(logits), count
    return pl.pallas_call(
        functools.partial(_kernel, count=count),
        grid=(len(logits),),
        in_specs=[ANY, ANY],
        out_specs=[ANY, ANY],
        out_shape=(jax.ShapeDtypeStruct(shape, jnp.int32), jax.ShapeDtypeStruct(shape, jnp.float32)),
        compiler_params=plt.CompilerParams(num_warps=16, num_stages=1),
        interpret=interpret,
        name="largest",
    )(logits, lines)


def _kernel(logits_ref: Any, lines_ref: Any, ids_ref: Any, values_ref: Any, *, count: int) -> None:
    row = pl.program_id(0)
    column = columns_of(lines_ref, row)

    def next_best(place: Array, left: Array) -> Array:
        value = jnp.max(left)
        token = jnp.min(jnp.where(left == value, column, jnp.iinfo(jnp.int32).max))
        plt.store(ids_ref.at[row, place], token)
        plt.store(values_ref.at[row, place], value)
        return jnp.where(column == token, -jnp.inf, left)

    lax.fori_loop(0, count, next_best, load_logits(logits_ref, row, column))
