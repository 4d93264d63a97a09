"""What the two warpgroups of a program do: one brings keys and values by bulk copies, one computes.

Both walk through the same tiles of 64 keys. A tile is cut into blocks of `Shape.width` columns, first those of its
keys, then those of its values, and block n of the walk lies in slot n % slots of a ring; a barrier per slot tells when
it is full and another when it is free. As in `scan.py` the query heads are the narrow side of both products: scores are
k q^T [64, G], the result is v^T p [H, G], so that a program needs few registers and two of them share a processor.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array

from pallas_kernels.core import plgpu
from pallas_kernels.decode_attention.tiling import Span, Tiling

MASKED = -1e30
LOG2E = math.log2(math.e)
NARROW = 8
"""Columns of a product: query heads of one KV head, padded."""
MATRIX, COLUMNS = plgpu.Layout.WGMMA, plgpu.Layout.WGMMA.reduce(0)


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a program knows when it is compiled."""

    group: int
    """Query heads of one KV head."""
    head_dim: int
    page_size: int
    table_width: int
    window: int | None
    dtype: Any
    slots: int
    tiling: Tiling

    @property
    def width(self) -> int:
        """Columns of a block of keys or values."""
        return min(self.head_dim, 256)

    @property
    def parts(self) -> int:
        """Blocks of a tile's keys."""
        return self.head_dim // self.width

    @property
    def pages(self) -> int:
        """Pages of a tile."""
        return self.tiling.keys // self.page_size

    def scratch(self) -> list[Any]:
        """Queries, ring, weights, result and its logarithm in shared memory, and the barriers."""
        tiled = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))
        heads = plgpu.SMEM((NARROW, self.head_dim), self.dtype, transforms=tiled)
        ring = plgpu.SMEM((self.slots, self.tiling.keys, self.width), self.dtype, transforms=tiled)
        weights = plgpu.SMEM((NARROW, self.tiling.keys), self.dtype, transforms=tiled)
        full = plgpu.Barrier(num_arrivals=self.pages, num_barriers=self.slots)
        free = plgpu.Barrier(num_barriers=self.slots)
        return [heads, ring, weights, heads, plgpu.SMEM((NARROW,), jnp.float32), plgpu.Barrier(), full, free]


def bring(ins: tuple[Any, ...], at: tuple[Array, ...], scratch: tuple[Any, ...], span: Span, shape: Shape) -> None:
    """Copies the queries and every block of the split `at[2]`, each as soon as its slot is free."""
    q_ref, k_ref, v_ref, table_ref = ins
    row, kv_head, split = at
    q, ring, _, _, _, asked, full, free = scratch
    plgpu.copy_gmem_to_smem(q_ref.at[row, pl.ds(kv_head * shape.group, NARROW)], q, asked)
    start, count = part_of(span, split)
    blocks = 2 * shape.parts

    def pages_of(tile: Array) -> tuple[Array, ...]:
        """Those of a tile; in place of one without a visible key, whose number may be anything, one with some."""
        first = tile * shape.pages
        places = [jnp.minimum(first + i, shape.table_width - 1) for i in range(shape.pages)]
        seen = [(place * shape.page_size < span.end) & ((place + 1) * shape.page_size > span.first) for place in places]
        numbers = [table_ref[row, place] for place in places]
        known = numbers[-1]
        for number, visible in zip(numbers, seen, strict=True):
            known = jnp.where(visible, number, known)
        return tuple(jnp.where(visible, number, known) for number, visible in zip(numbers, seen, strict=True))

    def step(i: Array, pages: tuple[Array, ...]) -> tuple[Array, ...]:
        following = pages_of(start + i + 1)  # looked up while this tile is on its way
        for n in range(blocks):
            block = blocks * i + n
            slot, ref = lax.rem(block, shape.slots), k_ref if n < shape.parts else v_ref
            pl.when(block >= shape.slots)(lambda slot=slot: plgpu.barrier_wait(free.at[slot]))
            columns = pl.ds(n % shape.parts * shape.width, shape.width)
            for place, page in enumerate(pages):
                rows = pl.ds(place * shape.page_size, shape.page_size)
                plgpu.copy_gmem_to_smem(ref.at[page, kv_head, :, columns], ring.at[slot, rows], full.at[slot])
        return following

    def drain(block: Array, _: None) -> None:
        plgpu.barrier_wait(free.at[lax.rem(block, shape.slots)])

    lax.fori_loop(0, count, step, pages_of(start))
    lax.fori_loop(jnp.maximum(blocks * count - shape.slots, 0), blocks * count, drain, None)


def attend(outs: Sequence[Any], at: tuple[Array, ...], scratch: tuple[Any, ...], span: Span, shape: Shape) -> None:
    """The running softmax over the tiles of the split `at[2]`, and its result."""
    row, kv_head, split = at
    q, ring, weights, result, lse, asked, full, free = scratch
    start, count = part_of(span, split)
    keys, parts, width = shape.tiling.keys, shape.parts, shape.width
    blocks = 2 * parts
    place = plgpu.broadcasted_iota(jnp.int32, (keys, NARROW), 0, layout=MATRIX)

    def step(i: Array, carry: tuple[Array, Array, tuple[Array, ...]]) -> tuple[Array, Array, tuple[Array, ...]]:
        largest, total, sums = carry
        slots = [lax.rem(blocks * i + n, shape.slots) for n in range(blocks)]

        def scores(accumulator: Any) -> Array:
            for n, slot in enumerate(slots[:parts]):
                plgpu.barrier_wait(full.at[slot])
                queries = q.at[:, pl.ds(n * width, width)].transpose((1, 0))
                plgpu.wgmma(accumulator, ring.at[slot], queries)
            return accumulator[...]

        score = pl.run_scoped(scores, plgpu.ACC((keys, NARROW), jnp.float32))
        for slot in slots[:parts]:
            plgpu.barrier_arrive(free.at[slot])
        first = (start + i) * keys
        seen = (place >= span.first - first) & (place < span.end - first)
        score = jnp.where(seen, score * LOG2E, MASKED)
        highest = jnp.maximum(largest, jnp.max(score, axis=0))
        p = jnp.where(seen, jnp.exp2(score - over_rows(highest, keys)), 0.0)
        shrink = jnp.exp2(largest - highest)
        weights.transpose((1, 0))[...] = p.astype(shape.dtype)
        plgpu.commit_smem()
        at_an_edge = (first < span.first) | (first + keys > span.end)
        sums = tuple(
            total * over_rows(shrink, width) + value_product(ring, weights, slot, full, seen_rows(first), at_an_edge)
            for slot, total in zip(slots[parts:], sums, strict=True)
        )
        for slot in slots[parts:]:
            plgpu.barrier_arrive(free.at[slot])
        return highest, total * over_rows(shrink, keys) + p, sums

    def seen_rows(first: Array) -> tuple[Array, Array]:
        return span.first - first, span.end - first

    plgpu.barrier_wait(asked)
    largest = plgpu.layout_cast(jnp.full((NARROW,), MASKED, jnp.float32), COLUMNS)
    zeros = [plgpu.layout_cast(jnp.zeros((n, NARROW), jnp.float32), MATRIX) for n in (keys, width)]
    start_sums: tuple[Array, ...] = (zeros[1],) * parts
    largest, total, sums = lax.fori_loop(0, count, step, (largest, zeros[0], start_sums))
    total = jnp.maximum(jnp.sum(total, axis=0), 1e-30)
    for n, part in enumerate(sums):
        columns = result.at[:, pl.ds(n * width, width)].transpose((1, 0))
        columns[...] = (part / over_rows(total, width)).astype(shape.dtype)
    if len(outs) > 1:
        lse[...] = largest * (1 / LOG2E) + jnp.log(total)
    plgpu.commit_smem()
    # Rows past the group are out of bounds there, and the copy leaves them.
    plgpu.copy_smem_to_gmem(result, outs[0].at[row, split, kv_head, pl.ds(kv_head * 0, NARROW)])
    if len(outs) > 1:
        plgpu.copy_smem_to_gmem(lse, outs[1].at[row, split, kv_head])
    plgpu.wait_smem_to_gmem(0)


def value_product(
    ring: Any, weights: Any, slot: Array, full: Any, seen: tuple[Array, Array], at_an_edge: Array
) -> Array:
    """v^T p [width, G] of a block. Rows of v not seen are zeroed: they may hold anything, and 0 * NaN is NaN."""
    _, keys, width = ring.shape
    plgpu.barrier_wait(full.at[slot])

    @pl.when(at_an_edge)
    def _() -> None:
        for column in range(0, width, 64):
            block = ring.at[slot, :, pl.ds(column, 64)]
            row = plgpu.broadcasted_iota(jnp.int32, (keys, 64), 0, layout=MATRIX)
            values = plgpu.load(block, layout=MATRIX)
            block[...] = jnp.where((row >= seen[0]) & (row < seen[1]), values, jnp.zeros((), values.dtype))
        plgpu.commit_smem()

    def product(accumulator: Any) -> Array:
        plgpu.wgmma(accumulator, ring.at[slot].transpose((1, 0)), weights.transpose((1, 0)))
        return accumulator[...]

    return pl.run_scoped(product, plgpu.ACC((width, NARROW), jnp.float32))


def part_of(span: Span, split: Array) -> tuple[Array, Array]:
    """First tile of a split, and how many it has."""
    first = span.tile + split * span.per_split
    return first, jnp.maximum(jnp.minimum(span.per_split, span.tile + span.tiles - first), 0)


def over_rows(values: Array, rows: int) -> Array:
    """[G] -> [rows, G]."""
    return lax.broadcast_in_dim(values, (rows, values.shape[0]), [1])
