"""The per-layer gate of several rows: a narrow product in splits, then their sum, its gelu and other columns."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import DTypeLike, Float

from pallas_kernels.core import Unsupported, launcher
from pallas_kernels.linear.reference import Columns, activate
from pallas_kernels.linear.tiles import MAX_NORM_ROWS, MAX_ROWS, MAX_SPLITS, MIN_STEPS, DotTile, fit
from pallas_kernels.linear.triton import project
from pallas_kernels.norm.triton import ANY, load_sum

MAX_COLUMNS = 1024
"""A program of the second launch holds a row of every split in registers."""
TILE = DotTile(16, 128, 4, 4)
"""The fastest of seven ways at 16 and at 64 rows of E4B on an H200 (docs/experiments.md)."""


def choose_tile(n: int, k: int, *, rows: int, wide: bool) -> DotTile:
    """As many splits as the depth allows: the columns alone would keep four processors busy. Unsupported: not ours."""
    if wide or not MAX_NORM_ROWS < rows <= MAX_ROWS:
        raise Unsupported(f"{rows} rows are left to others")
    if n > MAX_COLUMNS or n & (n - 1):
        raise Unsupported(f"{n} columns")
    depth = fit(k, TILE.depth)
    splits = min(k // depth // MIN_STEPS, MAX_SPLITS)
    if splits < 2:
        raise Unsupported(f"depth {k} is not worth splitting")
    return TILE._replace(depth=depth, splits=splits)


@launcher("interpret")
def project_times(
    x: Float[Array, "R K"], w: Float[Array, "N K"], times: Columns, *, interpret: bool = False
) -> Float[Array, "R N"]:
    """`gelu(x @ w.T) * times`; raises Unsupported for batches and widths that are not its own."""
    tile = choose_tile(*w.shape, rows=len(x), wide=x.dtype == jnp.float32)
    sums = project(x, w, None, None, split=True, interpret=interpret, tile=tile)
    return split_times(sums, times, dtype=x.dtype, interpret=interpret)


def split_times(
    sums: Float[Array, "S R N"], times: Columns, *, dtype: DTypeLike, interpret: bool = False
) -> Float[Array, "R N"]:
    """`gelu(sum over S) * times`, the sum rounded to `dtype` as the whole product would have been; N is a power of
    two."""
    _, rows, columns = sums.shape
    return pl.pallas_call(
        _kernel,
        grid=(rows,),
        in_specs=[ANY] * 3,
        out_specs=ANY,
        out_shape=jax.ShapeDtypeStruct((rows, columns), dtype),
        compiler_params=plt.CompilerParams(num_warps=max(1, min(8, columns // 128)), num_stages=1),
        interpret=interpret,
        name="split_times",
    )(sums, times.array, jnp.reshape(jnp.asarray(times.part, jnp.int32), 1))


def _kernel(sums: Any, array: Any, part: Any, out: Any) -> None:
    columns = sums.shape[2]
    row, column = pl.program_id(0), lax.iota(jnp.int32, columns)
    whole = load_sum(sums, (row, column), out.dtype)
    at = plt.load(part.at[jnp.int32(0)]) * columns + column
    plt.store(out.at[row, column], activate([whole], plt.load(array.at[row, at])))
