"""Small-batch products as one launch each, with what stands before and after them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Float

from pallas_kernels.core import Unsupported, launcher
from pallas_kernels.linear.dot import dot_kernel
from pallas_kernels.linear.gemv import gemv_kernel
from pallas_kernels.linear.operand import Rows, Stream
from pallas_kernels.linear.reference import Activation, Columns
from pallas_kernels.linear.tiles import MAX_NORM_ROWS, DotTile, Tile, choose_tile
from pallas_kernels.norm.reference import Residual, Splits
from pallas_kernels.norm.triton import ANY

MIN_DEPTH = 16
"""The fewest columns of a tensor core product."""


@launcher("activation", "split", "rounded", "interpret", "tile")
def project(
    x: Float[Array, "R K"],
    w: Float[Array, "M K"],
    activation: Activation | None,
    times: Columns | None,
    *,
    split: bool = False,
    rounded: bool = True,
    interpret: bool = False,
    tile: Tile | None = None,
) -> Splits:
    """See `reference.project`; raises Unsupported for batches and depths that are not its own.

    With `split` (and no activation) the result may be splits [S, R, N]; it is float32 unless `rounded`. `tile` is for
    measurements.
    """
    (rows, k), n = x.shape, _columns(w, activation)
    if tile is None:
        gated, wide = activation == "gated", x.dtype == jnp.float32
        tile = choose_tile(n, k, rows=rows, gated=gated, normed=False, wide=wide, split=split)
    if tile is None:
        raise Unsupported(f"{rows} rows are left to XLA")
    if isinstance(tile, DotTile) and tile.splits > 1:
        if activation is not None:
            raise ValueError("an activation needs the whole product, not splits of it")
        out = jax.ShapeDtypeStruct((tile.splits, rows, n), jnp.float32)
    else:
        out = jax.ShapeDtypeStruct((rows, n), x.dtype if rounded else jnp.float32)
    return _launch(lambda x, stream: Rows(x), x, w, activation, times, [out], interpret, tile)[0]


@launcher("activation", "eps", "interpret", "tile")
def norm_linear(
    residual: Residual,
    then: Float[Array, " D"] | None,
    w: Float[Array, "M D"],
    activation: Activation | None,
    times: Columns | None,
    *,
    eps: float,
    interpret: bool = False,
    tile: Tile | None = None,
) -> tuple[Float[Array, "R D"], Float[Array, "R N"]]:
    """See `api.norm_linear`; raises Unsupported for batches and depths that are not its own, and for splits."""
    (rows, k), n, dtype = residual.x.shape, _columns(w, activation), residual.x.dtype
    if rows > MAX_NORM_ROWS:
        raise Unsupported(f"{rows} rows: more than {MAX_NORM_ROWS}")
    if residual.y is not None and residual.y.ndim == 3:
        raise Unsupported("every program would sum the splits")
    if tile is None:
        gated = activation == "gated"
        tile = choose_tile(n, k, rows=rows, gated=gated, normed=True, wide=dtype == jnp.float32)
    if tile is None:
        raise Unsupported(f"{rows} rows are left to XLA")
    outputs = [jax.ShapeDtypeStruct((rows, n), dtype)]
    if residual.y is not None or residual.scale is not None:
        outputs.append(jax.ShapeDtypeStruct((rows, k), dtype))

    def operand(given: Any, stream: Any) -> Stream:
        return Stream(given[0], given[1], stream, eps, pl.program_id(0))

    out, *stream = _launch(operand, (residual, then), w, activation, times, outputs, interpret, tile)
    return (stream[0] if stream else residual.x), out


def _columns(w: Array, activation: Activation | None) -> int:
    return w.shape[0] // 2 if activation == "gated" else w.shape[0]


def _launch(
    make_operand: Callable[[Any, Any], Rows | Stream],
    given: Any,
    w: Array,
    activation: Activation | None,
    times: Columns | None,
    outputs: list[jax.ShapeDtypeStruct],
    interpret: bool,
    tile: Tile,
) -> Sequence[Array]:
    """The product of `make_operand(given, stream)` with w and, if there is a second output, the stream."""
    depth, columns = w.shape[1], outputs[0].shape[-1]
    if isinstance(tile, DotTile) and tile.depth < MIN_DEPTH:
        raise Unsupported(f"depth {depth} is not a multiple of {MIN_DEPTH}")
    if times is not None:
        times = Columns(times.array, jnp.reshape(jnp.asarray(times.part, jnp.int32), 1))
    leaves, tree = jax.tree.flatten((given, w, times))

    def kernel(*refs):
        given, w_ref, factor = jax.tree.unflatten(tree, refs[: len(leaves)])
        out, *stream = refs[len(leaves) :]
        operand = make_operand(given, stream[0] if stream else None)
        if isinstance(tile, DotTile):
            dot_kernel(operand, w_ref, activation, factor, out, tile)
        else:
            gemv_kernel(operand, w_ref, activation, factor, out, tile)

    normed = not isinstance(given, Array)
    return pl.pallas_call(
        kernel,
        grid=_grid(columns, tile),
        in_specs=[ANY] * len(leaves),
        out_specs=[ANY] * len(outputs),
        out_shape=outputs,
        compiler_params=plt.CompilerParams(num_warps=tile.warps, num_stages=getattr(tile, "stages", 1)),
        interpret=interpret,
        name=f"{'norm_' * normed}{activation or 'plain'}_linear",
    )(*leaves)


def _grid(columns: int, tile: Tile) -> tuple[int, ...]:
    blocks = pl.cdiv(columns, tile.rows)
    if isinstance(tile, DotTile):
        return (blocks,) if tile.splits == 1 else (blocks, tile.splits)
    return (min(blocks, tile.programs),)
