"""Joins the partial results of the splits of a row."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int

from pallas_kernels.decode_attention.tiling import Ends, Tiling, span_of

ANY = pl.BlockSpec(memory_space=pl.ANY)
CHUNK = 32
"""Partial results joined at a time, at most."""


def combine(
    partial: Float[Array, "B splits N H"],
    lse: Float[Array, "B splits K G"],
    counts: Int[Array, " B"],
    *,
    ends: Ends,
    window: int | None,
    tiling: Tiling,
    interpret: bool,
) -> Float[Array, "B N*H"]:
    """sum_i exp(lse_i - max) partial_i / sum_i exp(lse_i - max) over the splits that had work; zeros where none had.

    `lse` is that of head n at [n // (N / K), n % (N / K)]; G may be more than N / K.
    """
    rows, splits, num_heads, head_dim = partial.shape
    group = num_heads // lse.shape[2]
    columns = min(head_dim, 64 if rows * num_heads <= 128 else 256)
    padded = 1 << (splits - 1).bit_length()
    chunk = min(CHUNK, padded)

    def kernel(partial_ref: Any, lse_ref: Any, counts_ref: Any, out_ref: Any) -> None:
        part, head, row = (pl.program_id(i) for i in range(3))
        active = span_of(plt.load(counts_ref.at[row]), ends, window, tiling).active
        column = part * columns + lax.iota(jnp.int32, columns)

        def lse_of(split: Array) -> Array:
            known = plt.load(lse_ref.at[row, jnp.minimum(split, splits - 1), head // group, head % group])
            return jnp.where(split < active, known, -jnp.inf)

        largest = jnp.max(lse_of(lax.iota(jnp.int32, padded)))

        def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            total, result = carry
            split = i * chunk + lax.iota(jnp.int32, chunk)
            weight = jnp.where(split < active, jnp.exp(lse_of(split) - largest), 0.0)
            mask = jnp.broadcast_to((split < active)[:, None], (chunk, columns))
            at = partial_ref.at[row, jnp.minimum(split, splits - 1)[:, None], head, column[None]]
            piece = plt.load(at, mask=mask, other=jnp.zeros((), partial.dtype)).astype(jnp.float32)
            return total + weight, result + jnp.sum(piece * weight[:, None], axis=0)

        start = jnp.zeros((chunk,), jnp.float32), jnp.zeros((columns,), jnp.float32)
        total, result = lax.fori_loop(0, (active + chunk - 1) // chunk, step, start)
        result = result / jnp.maximum(jnp.sum(total), 1e-30)
        plt.store(out_ref.at[row, head * head_dim + column], result.astype(out_ref.dtype))

    return pl.pallas_call(
        kernel,
        grid=(head_dim // columns, num_heads, rows),
        in_specs=[ANY] * 3,
        out_specs=ANY,
        out_shape=jax.ShapeDtypeStruct((rows, num_heads * head_dim), partial.dtype),
        compiler_params=plt.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="attention_combine",
    )(partial, lse, counts)
