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
from pallas_kernels.linear.tiles import DotTile, Tile, choose_tile
from pallas_kernels.norm.reference import Residual
from pallas_kernels.norm.triton import ANY

MAX_ROWS = 64
"""Above, a product is bound by arithmetic and XLA's own is as good."""
MAX_NORM_ROWS = 4
"""Above, every program repeating the norm costs more than one launch for it."""
MIN_DEPTH = 16
"""The fewest columns of a tensor core product."""


@launcher("activation", "interpret", "tile")
def project(
    x: Float[Array, "R K"],
    w: Float[Array, "M K"],
    activation: Activation | None,
    times: Columns | None,
    *,
    interpret: bool = False,
    tile: Tile | None = None,
    after: Array | None = None,
) -> Float[Array, "R N"]:
    """See `reference.project`; raises Unsupported for batches and depths that are not its own.

    `tile` and `after`, an array that is not read but must have been computed, are for measurements.
    """
    if x.shape[0] > MAX_ROWS:
        raise Unsupported(f"{x.shape[0]} rows: more than {MAX_ROWS}")
    out = jax.ShapeDtypeStruct((x.shape[0], _columns(w, activation)), x.dtype)
    return _launch(lambda x, stream: Rows(x), x, w, activation, times, [out], interpret, tile, after)[0]


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
    """See `api.norm_linear`; raises Unsupported for batches and depths that are not its own."""
    if residual.x.shape[0] > MAX_NORM_ROWS:
        raise Unsupported(f"{residual.x.shape[0]} rows: more than {MAX_NORM_ROWS}")
    shape, dtype = residual.x.shape, residual.x.dtype
    outputs = [jax.ShapeDtypeStruct((shape[0], _columns(w, activation)), dtype)]
    if residual.y is not None or residual.scale is not None:
        outputs.append(jax.ShapeDtypeStruct(shape, dtype))

    def operand(given: Any, stream: Any) -> Stream:
        return Stream(given[0], given[1], stream, eps, pl.program_id(0))

    out, *stream = _launch(operand, (residual, then), w, activation, times, outputs, interpret, tile, None)
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
    tile: Tile | None,
    after: Array | None,
) -> Sequence[Array]:
    """The product [R, N] of `make_operand(given, stream)` with w and, if there is a second output, the stream."""
    (rows, columns), depth = outputs[0].shape, w.shape[1]
    wide = outputs[0].dtype == jnp.float32
    normed = not isinstance(given, Array)
    tile = tile or choose_tile(columns, depth, rows=rows, gated=activation == "gated", normed=normed, wide=wide)
    if isinstance(tile, DotTile) and tile.depth < MIN_DEPTH:
        raise Unsupported(f"depth {depth} is not a multiple of {MIN_DEPTH}")
    start = 0 if times is None else times.start
    leaves, tree = jax.tree.flatten((given, w, None if times is None else times.array, after))

    def kernel(*refs):
        given, w_ref, times_ref, _ = jax.tree.unflatten(tree, refs[: len(leaves)])
        out, *stream = refs[len(leaves) :]
        operand = make_operand(given, stream[0] if stream else None)
        factor = None if times_ref is None else Columns(times_ref, start)
        if isinstance(tile, DotTile):
            dot_kernel(operand, w_ref, activation, factor, out, tile)
        else:
            gemv_kernel(operand, w_ref, activation, factor, out, tile)

    blocks = pl.cdiv(columns, tile.rows)
    return pl.pallas_call(
        kernel,
        grid=(blocks if isinstance(tile, DotTile) else min(blocks, tile.programs),),
        in_specs=[ANY] * len(leaves),
        out_specs=[ANY] * len(outputs),
        out_shape=outputs,
        compiler_params=plt.CompilerParams(num_warps=tile.warps, num_stages=getattr(tile, "stages", 1)),
        interpret=interpret,
        name=f"{'norm_' * normed}{activation or 'plain'}_linear",
    )(*leaves)
