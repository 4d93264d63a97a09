"""The weighted sum of each row's results, as a Pallas kernel (Triton)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int

COLUMNS = 256
"""Of a program, which is one warp: 16 bytes of bfloat16 a thread and slot."""


def combine(
    results: Float[Array, "P D"],
    weights: Float[Array, "R k"],
    ids: Int[Array, "R k"],
    num_experts: int,
    rows: Int[Array, " S"] | None = None,
    *,
    interpret: bool = False,
) -> Float[Array, "R D"]:
    """Sums a row's k results in their order, in float32. Those of experts that are not here are not read.

    `rows`: where the result of each slot lies, if not in the order of the slots.
    """
    (num_rows, k), width = ids.shape, results.shape[1]
    columns = min(COLUMNS, width & -width)
    operands = (results, weights.reshape(-1), ids.reshape(-1), *(() if rows is None else (rows,)))
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    return pl.pallas_call(
        functools.partial(_kernel, k=k, num_experts=num_experts, columns=columns),
        grid=(width // columns, num_rows),
        in_specs=[anywhere] * len(operands),
        out_specs=anywhere,
        out_shape=jax.ShapeDtypeStruct((num_rows, width), results.dtype),
        interpret=interpret,
        name="moe_combine",
        compiler_params=plt.CompilerParams(num_warps=1, num_stages=1),
    )(*operands)


def _kernel(
    results_ref: Any, weights_ref: Any, ids_ref: Any, *refs: Any, k: int, num_experts: int, columns: int
) -> None:
    *rows_ref, out_ref = refs
    row = pl.program_id(1)
    column = pl.program_id(0) * columns + lax.iota(jnp.int32, columns)
    zero = jnp.zeros((), results_ref.dtype)
    parts, shares = [], []
    for slot in range(k):
        expert = plt.load(ids_ref.at[row * k + slot])
        here = (expert >= 0) & (expert < num_experts)
        mask = jnp.broadcast_to(here, (columns,))
        place = plt.load(rows_ref[0].at[row * k + slot], mask=here, other=0) if rows_ref else row * k + slot
        parts.append(plt.load(results_ref.at[place, column], mask=mask, other=zero))
        shares.append(jnp.where(here, plt.load(weights_ref.at[row * k + slot]).astype(jnp.float32), 0))
    total = jnp.zeros((columns,), jnp.float32)
    for part, share in zip(parts, shares, strict=True):
        total += part.astype(jnp.float32) * share
    plt.store(out_ref.at[row, column], total.astype(out_ref.dtype))
