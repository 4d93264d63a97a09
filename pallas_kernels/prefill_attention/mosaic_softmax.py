"""What a computing warpgroup does: the running softmax of its 64 rows over tiles of 64 keys.

The two of a program take turns: while one has the tensor cores, the other is at its softmax. Each arrives when it has
asked for its scores, and again when its weights are ready, and waits there for the other; the second begins half a step
late. Only the tiles at both ends of a walk need a mask, and only there may values be anything, even NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array

from pallas_kernels.core import plgpu
from pallas_kernels.prefill_attention.mosaic_program import KEYS, LOWER, ROWS, UPPER, Shape, Tile, store

LOG2E = math.log2(math.e)
MASKED = -1e30
MATRIX = plgpu.Layout.WGMMA
VECTOR = MATRIX.reduce(1)


def attend(out_ref: Any, at: tuple[Array, ...], scratch: tuple[Any, ...], tile: Tile, shape: Shape) -> None:
    """The running softmax of a warpgroup's rows over the keys in sight, and its result."""
    (queries, *_), ring, facts, asked, full, free, turn = scratch
    warpgroup = lax.axis_index("warpgroup")

    def change_turn() -> None:
        if shape.turns:
            plgpu.barrier_arrive(turn)
            plgpu.barrier_wait(turn)

    def step(i: Array, carry: tuple[Any, ...], masked: bool) -> tuple[Any, ...]:
        largest, total, sums = carry
        slots = [lax.rem(shape.blocks * i + n, shape.slots) for n in range(shape.blocks)]
        q = queries.at[lax.axis_index("warpgroup")]  # asked again: kept, its address costs registers
        score = scores(q, ring, slots[: shape.key_blocks], full, free, change_turn, shape)
        values = slots[shape.key_blocks :]
        if masked:
            for slot in values:
                plgpu.barrier_wait(full.at[slot])
            known = Tile.read(facts)
            key = known.origin + i * KEYS
            begin, end = known.begin - key, known.end - key
            pl.when((begin > 0) | (end < KEYS))(lambda: clear_unseen(ring, values, begin, end))
            score = jnp.where(seen(facts, key, shape), score, MASKED)
        highest = jnp.maximum(largest, jnp.max(score, axis=1) * LOG2E)
        shrink = jnp.exp2(largest - highest)
        p = jnp.exp2(score * LOG2E - along(highest, KEYS))
        sums = tuple(part * along(shrink, shape.width) for part in sums)
        total = total * shrink + jnp.sum(p, axis=1)
        weights = p.astype(shape.dtype)
        if shape.turns:
            plgpu.barrier_arrive(turn)
        if not masked:
            for slot in values:
                plgpu.barrier_wait(full.at[slot])
        if shape.turns:
            plgpu.barrier_wait(turn)
        sums = add_products(sums, weights, ring, values, shape)
        for slot in values:
            plgpu.barrier_arrive(free.at[slot])
        return highest, total, sums

    plgpu.barrier_wait(asked)
    pl.when(warpgroup == 1)(change_turn)
    carry = (vector(MASKED), vector(0.0), (zeros(ROWS, shape.width),) * shape.value_blocks)
    if shape.window is not None:
        carry = lax.fori_loop(0, tile.inner, lambda i, carry: step(i, carry, masked=True), carry)
    carry = lax.fori_loop(tile.inner, tile.outer, lambda i, carry: step(i, carry, masked=False), carry)
    _, total, sums = lax.fori_loop(tile.outer, tile.steps, lambda i, carry: step(i, carry, masked=True), carry)
    pl.when(warpgroup == 0)(change_turn)
    share = 1 / jnp.maximum(total, 1e-30)
    parts = [(part * along(share, shape.width)).astype(shape.dtype) for part in sums]
    store(out_ref, at, scratch, Tile.read(facts), parts, shape)


def scores(
    q: Any, ring: Any, slots: list[Array], full: Any, free: Any, change_turn: Callable[[], None], shape: Shape
) -> Array:
    """q k^T [64, 64] of a tile; its key blocks are free then."""

    def product(accumulator: Any) -> Array:
        for n, slot in enumerate(slots):
            plgpu.barrier_wait(full.at[slot])
            plgpu.wgmma(accumulator, q.at[:, pl.ds(n * shape.width, shape.width)], ring.at[slot].transpose((1, 0)))
            if n > 0:
                plgpu.wgmma_wait(1)  # all but this block's
                plgpu.barrier_arrive(free.at[slots[n - 1]])
        change_turn()
        return accumulator[...]

    result = pl.run_scoped(product, plgpu.ACC((ROWS, KEYS), jnp.float32))
    plgpu.barrier_arrive(free.at[slots[-1]])
    return result


def add_products(
    sums: tuple[Array, ...], weights: Array, ring: Any, slots: list[Array], shape: Shape
) -> tuple[Array, ...]:
    """Each of the sums [64, width] plus weights [64, 64] times its block of values."""
    if shape.interpret:  # the simulator has no products that begin with a sum
        dot = lambda slot: jnp.dot(weights, ring[slot], preferred_element_type=jnp.float32)  # noqa: E731
        return tuple(part + dot(slot) for part, slot in zip(sums, slots, strict=True))

    def product(accumulators: Any) -> None:
        for accumulator, slot in zip(accumulators, slots, strict=True):
            plgpu.wgmma(accumulator, weights, ring.at[slot])

    return pl.run_state(product)(tuple(plgpu.ACC.init(part) for part in sums))


def seen(facts: Any, key: Array, shape: Shape) -> Array:
    """Which of the keys from `key` on the rows see [64, 64]."""
    column = key + plgpu.broadcasted_iota(jnp.int32, (ROWS, KEYS), 1, layout=MATRIX)
    visible = column <= along(plgpu.load(facts.at[UPPER], layout=VECTOR), KEYS)
    if shape.window is None:
        return visible
    return visible & (column >= along(plgpu.load(facts.at[LOWER], layout=VECTOR), KEYS))


def clear_unseen(ring: Any, slots: list[Array], begin: Array, end: Array) -> None:
    """Zeroes the values outside of `begin .. end - 1`: they may be anything, and 0 * NaN is NaN.

    Both warpgroups do it, each before its own product, and write the same.
    """
    _, keys, width = ring.shape
    for slot in slots:

        @pl.loop(0, width // 64)
        def _(column: Array, slot: Array = slot) -> None:
            block = ring.at[slot, :, pl.ds(column * 64, 64)]
            row = plgpu.broadcasted_iota(jnp.int32, (keys, 64), 0, layout=MATRIX)
            values = plgpu.load(block, layout=MATRIX)
            block[...] = jnp.where((row >= begin) & (row < end), values, jnp.zeros((), values.dtype))

    plgpu.commit_smem()


def along(values: Array, columns: int) -> Array:
    """[64] -> [64, columns]."""
    return lax.broadcast_in_dim(values, (values.shape[0], columns), [0])


def vector(value: float) -> Array:
    return plgpu.layout_cast(jnp.full((ROWS,), value, jnp.float32), VECTOR)


def zeros(rows: int, columns: int) -> Array:
    return plgpu.layout_cast(jnp.zeros((rows, columns), jnp.float32), MATRIX)
