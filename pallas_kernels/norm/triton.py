"""The residual stream and its norms in one launch: one program per row holds the whole row in registers."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Float

from pallas_kernels.core import Unsupported, launcher
from pallas_kernels.norm.reference import Residual

MAX_WIDTH = 8192
"""Elements of a row that fit the registers of one program."""
ANY = pl.BlockSpec(memory_space=pl.ANY)


@launcher("eps", "interpret")
def add_rms_norm(
    residual: Residual, then: tuple[Float[Array, " D"], ...], *, eps: float, interpret: bool = False
) -> tuple[Float[Array, "R D"], tuple[Float[Array, "R D"], ...]]:
    """See `api.add_rms_norm`. Raises Unsupported where the row is too long."""
    rows, width = residual.x.shape
    block = pl.next_power_of_2(width)
    if block > MAX_WIDTH:
        raise Unsupported(f"rows of {width} elements do not fit the registers of a program")
    splits = residual.y is not None and residual.y.ndim == 3
    writes_stream = residual.y is not None or residual.scale is not None
    outputs = writes_stream + len(then)
    if not outputs:
        return residual.x, ()
    inputs = (residual, then)
    leaves, tree = jax.tree.flatten(inputs)

    def kernel(*refs):
        (stream, weights), outs = jax.tree.unflatten(tree, refs[: len(leaves)]), list(refs[len(leaves) :])
        column = lax.iota(jnp.int32, block)
        index, mask = (pl.program_id(0), column), column < width
        x = stream_row(stream, index, mask, width, eps)
        if writes_stream:
            plt.store(outs.pop(0).at[index], x.astype(residual.x.dtype), mask=mask)
        if weights:
            normed = x * rms_scale(x, width, eps)
        for weight, out in zip(weights, outs, strict=True):
            value = normed * load(weight, (column,), mask).astype(jnp.float32)
            plt.store(out.at[index], value.astype(residual.x.dtype), mask=mask)

    results = pl.pallas_call(
        kernel,
        grid=(rows,),
        in_specs=[ANY] * len(leaves),
        out_specs=[ANY] * outputs,
        out_shape=[jax.ShapeDtypeStruct((rows, width), residual.x.dtype)] * outputs,
        compiler_params=plt.CompilerParams(num_warps=_warps(block, splits), num_stages=1),
        interpret=interpret,
        name="add_rms_norm",
    )(*leaves)
    return (results[0], tuple(results[1:])) if writes_stream else (residual.x, tuple(results))


@launcher("eps", "interpret")
def sum_rms_norm(
    parts: tuple[Float[Array, "R D"], ...],
    weights: tuple[Float[Array, " D"], ...],
    *,
    eps: float,
    interpret: bool = False,
) -> Float[Array, "R D"]:
    """See `api.sum_rms_norm`. Raises Unsupported where the row is too long."""
    rows, width = parts[0].shape
    dtype, block = parts[0].dtype, pl.next_power_of_2(width)
    if block > MAX_WIDTH:
        raise Unsupported(f"rows of {width} elements do not fit the registers of a program")

    def kernel(*refs):
        column = lax.iota(jnp.int32, block)
        index, mask = (pl.program_id(0), column), column < width
        total = jnp.zeros((block,), jnp.float32)
        for part, weight in zip(refs[: len(parts)], refs[len(parts) : -1], strict=True):
            y = load(part, index, mask).astype(jnp.float32)
            y = y * rms_scale(y, width, eps) * load(weight, (column,), mask).astype(jnp.float32)
            total = rounded(total + rounded(y, dtype), dtype)
        plt.store(refs[-1].at[index], total.astype(dtype), mask=mask)

    return pl.pallas_call(
        kernel,
        grid=(rows,),
        in_specs=[ANY] * (2 * len(parts)),
        out_specs=ANY,
        out_shape=jax.ShapeDtypeStruct((rows, width), dtype),
        compiler_params=plt.CompilerParams(num_warps=_warps(block), num_stages=1),
        interpret=interpret,
        name="sum_rms_norm",
    )(*parts, *weights)


def _warps(block: int, splits: bool = False) -> int:
    """Eight elements to a thread; four while there are splits, which are all loaded at once."""
    return max(1, min(16, block // 128) if splits else min(8, block // 256))


def stream_row(stream: Residual, index: tuple[Any, ...], mask: Array, width: int, eps: float) -> Array:
    """In a kernel: a whole row of the stream, at `index` (row, columns)."""
    parts = load_parts(stream, index, mask)
    y_scale = None if parts.y is None else rms_scale(parts.y.astype(jnp.float32), width, eps)
    return combine(parts, y_scale)


def load_parts(stream: Residual, index: tuple[Any, ...], mask: Array | None = None) -> Residual:
    """In a kernel: the parts of the stream's elements at `index` (rows, columns), in their dtype."""
    return Residual(
        load(stream.x, index, mask),
        load_y(stream, index, mask),
        load(stream.weight, index[-1:], mask),
        load(stream.scale, (jnp.int32(0),)),
    )


def load_y(stream: Residual, index: tuple[Any, ...], mask: Array | None = None) -> Any:
    """In a kernel: elements of y."""
    return None if stream.y is None else load_sum(stream.y, index, stream.x.dtype, mask)


def load_sum(ref: Any, index: tuple[Any, ...], dtype: Any, mask: Array | None = None) -> Array:
    """In a kernel: elements of a product, at `index` (rows, columns).

    Splits are added in order and rounded to `dtype`, as the whole product would have been.
    """
    if len(ref.shape) == 2:
        return load(ref, index, mask)
    splits = [load(ref, (jnp.int32(split), *index), mask) for split in range(ref.shape[0])]
    return functools.reduce(jnp.add, splits).astype(dtype)


def combine(parts: Residual, y_scale: Array | None) -> Array:
    """In a kernel: `x' = (x + y * y_scale * weight) * scale` in float32, every step rounded as the reference does."""
    dtype = parts.x.dtype
    x = parts.x.astype(jnp.float32)
    if parts.y is not None and y_scale is not None:
        y = parts.y.astype(jnp.float32) * y_scale
        if parts.weight is not None:
            y = y * parts.weight.astype(jnp.float32)
        x = rounded(x + rounded(y, dtype), dtype)
    if parts.scale is not None:
        x = rounded(x * parts.scale.astype(jnp.float32), dtype)
    return x


def rms_scale(x: Float[Array, "... C"], width: int, eps: float) -> Array:
    """`(mean(x^2) + eps)^-0.5` over the last axis (kept); elements past `width` must be zero."""
    total = jnp.sum(x * x, axis=-1, keepdims=x.ndim > 1)
    return lax.rsqrt(total * (1.0 / width) + eps)


def load(ref: Any, index: tuple[Any, ...], mask: Array | None = None) -> Any:
    """In a kernel: elements of `ref`, zero where masked; None for no `ref`."""
    if ref is None:
        return None
    return plt.load(ref.at[index], mask=mask, other=None if mask is None else jnp.zeros((), ref.dtype))


def rounded(x: Array, dtype: Any) -> Array:
    """Rounds float32 values to `dtype`, as storing and loading them would."""
    return x if dtype == jnp.float32 else x.astype(dtype).astype(jnp.float32)
