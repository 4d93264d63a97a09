"""A product with one row in registers: plain multiply and add, the next block of the weight loaded ahead."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Float

from pallas_kernels.linear.dot import load_columns
from pallas_kernels.linear.operand import Rows, Stream
from pallas_kernels.linear.reference import Activation, Columns, activate
from pallas_kernels.linear.tiles import GemvTile, fit, is_ragged
from pallas_kernels.norm.triton import combine, load, load_parts

CHUNK = 256
"""Columns of a segment that are loaded together: 16 bytes for each thread of a warp."""

Parts = list[Float[Array, "S C"]]
"""A row of K elements as segments [S, K/S], in chunks of columns."""


def gemv_kernel(
    operand: Rows | Stream, w: Any, activation: Activation | None, times: Columns | None, out: Any, tile: GemvTile
) -> None:
    """The body of a program: every `tile.programs`-th block of `out` [1, N]; w is [N, K], gated [2N, K]."""
    columns, program = out.shape[1], pl.program_id(0)
    blocks = pl.cdiv(columns, tile.rows)
    halves = 2 if activation == "gated" else 1

    def weights(block):
        column = block * tile.rows + lax.iota(jnp.int32, tile.rows)
        column = jnp.minimum(column, columns - 1)
        return tuple(_load_rows(w, half * columns + column, tile) for half in range(halves))

    def emit(block, loaded):
        sums = [_dot(parts, h) for parts in loaded]
        values = [(total if scale is None else total * scale).astype(out.dtype) for total in sums]
        column = block * tile.rows + lax.iota(jnp.int32, tile.rows)
        index, mask = (jnp.zeros_like(column), column), column < columns
        factor = None if times is None else load_columns(times, index, mask, columns)
        plt.store(out.at[index], activate(values, factor), mask=mask)

    def turn(i, loaded):
        ahead = weights(program + (i + 1) * tile.programs)
        emit(program + i * tile.programs, loaded)
        return ahead

    first = weights(program)
    h, scale = _row(operand, tile)
    turns = pl.cdiv(blocks, tile.programs)
    last = lax.fori_loop(0, turns - 1, turn, first) if turns > 1 else first
    emit(program + (turns - 1) * tile.programs, last)


def _row(operand: Rows | Stream, tile: GemvTile) -> tuple[Parts, Array | None]:
    """The operand's row in its dtype, and the scale that its norm leaves to the result."""
    if isinstance(operand, Rows):
        width = operand.x.shape[1]
        return [load(operand.x, index, _mask(index, width, tile)) for index in _indices(width, tile)], None
    width = operand.residual.x.shape[1]
    indices = _indices(width, tile)
    parts = [load_parts(operand.residual, index, _mask(index, width, tile)) for index in indices]
    y_scale = (
        None
        if operand.residual.y is None
        else _scale([part.y for part in parts if part.y is not None], width, operand.eps)
    )
    x = [combine(part, y_scale) for part in parts]
    for index, value in zip(indices, x, strict=True):
        if operand.out is not None:
            mask = jnp.broadcast_to(operand.program == 0, value.shape)
            inside = _mask(index, width, tile)
            mask = mask if inside is None else mask & inside
            plt.store(operand.out.at[index], value.astype(operand.out.dtype), mask=mask)
    scale = None
    if operand.then is not None:
        scale = _scale(x, width, operand.eps)
        x = [
            value * load(operand.then, index[1:], _mask(index, width, tile)).astype(jnp.float32)
            for index, value in zip(indices, x, strict=True)
        ]
    return [value.astype(operand.residual.x.dtype) for value in x], scale


def _indices(width: int, tile: GemvTile) -> list[tuple[Array, Array]]:
    """(row 0, column) of every chunk. The last columns may be past the end, where segments are no whole chunks."""
    segment, chunk = width // tile.segments, fit(width // tile.segments, CHUNK)
    if is_ragged(width, tile):
        segment, chunk = CHUNK * -(-width // (tile.segments * CHUNK)), CHUNK
    shape = (tile.segments, chunk)
    column = lax.broadcasted_iota(jnp.int32, shape, 0) * segment + lax.broadcasted_iota(jnp.int32, shape, 1)
    return [(jnp.zeros_like(column), column + start) for start in range(0, segment, chunk)]


def _mask(index: tuple[Array, Array], width: int, tile: GemvTile) -> Array | None:
    """Which columns are there; None for all."""
    return index[1] < width if is_ragged(width, tile) else None


def _load_rows(w: Any, row: Array, tile: GemvTile) -> tuple[Array, ...]:
    width = w.shape[1]
    shape = (tile.rows, *_indices(width, tile)[0][1].shape)
    rows = jnp.broadcast_to(row[:, None, None], shape)

    def part(index: tuple[Array, Array]) -> Array:
        at, mask = w.at[rows, jnp.broadcast_to(index[1][None], shape)], _mask(index, width, tile)
        if mask is None:
            return plt.load(at, eviction_policy="evict_first")
        mask = jnp.broadcast_to(mask[None], shape)
        return plt.load(at, mask=mask, other=jnp.zeros((), w.dtype), eviction_policy="evict_first")

    return tuple(part(index) for index in _indices(width, tile))


def _dot(parts: tuple[Array, ...], h: Parts) -> Float[Array, " N"]:
    products = [part.astype(jnp.float32) * x.astype(jnp.float32)[None] for part, x in zip(parts, h, strict=True)]
    return jnp.sum(jnp.sum(jax.tree.reduce(jnp.add, products), axis=2), axis=1)


def _scale(parts: list[Array], width: int, eps: float) -> Array:
    squares = jax.tree.reduce(jnp.add, [jnp.square(part.astype(jnp.float32)) for part in parts])
    return lax.rsqrt(jnp.sum(jnp.sum(squares, axis=1)) * (1.0 / width) + eps)
