"""Prefill attention as one Pallas kernel (Triton).

A program owns a tile of packed queries of one sequence and one KV head. The query heads that share the KV head are
folded into the rows of the tile, so one product serves them all. Keys come through the block table, a tile at a time,
from the first key that the tile's first query sees to the last key that any of its queries sees. Only the key tiles at
both ends need a mask: the loop is cut in three, and the middle, which is most of a long prompt, runs without.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int

from pallas_kernels.core import Unsupported, launcher
from pallas_kernels.prefill_attention.tiles import cut, owned

LOG2E = 1.4426950408889634
MASKED = -1e30
"""Score of a key out of sight. Finite: -inf - -inf would be NaN in a row that sees no key of a tile."""


class Blocks(NamedTuple):
    """Sizes of one program: rows (queries times folded heads), keys per tile, warps, stages of the load pipeline."""

    rows: int
    keys: int
    warps: int
    stages: int


def choose_blocks(head_dim: int, dtype: jnp.dtype) -> Blocks:
    """Sizes that spill no registers on an H200."""
    if dtype == jnp.float32:  # full precision runs without tensor cores
        return Blocks(rows=16, keys=16, warps=4, stages=1)
    if head_dim > 256:
        return Blocks(rows=64, keys=32, warps=8, stages=2)
    return Blocks(rows=128, keys=64, warps=8, stages=2)


class _Batch(NamedTuple):
    """The int32 inputs of the kernel."""

    table: Any
    starts: Any
    lengths: Any
    contexts: Any
    limits: Any
    owned: Any
    tiles: Any  # `Tiles`


@launcher("window", "interpret", "blocks")
def prefill_attention(
    q: Float[Array, "T N H"],
    k_pages: Float[Array, "P K Z H"],
    v_pages: Float[Array, "P K Z H"],
    table: Int[Array, "R M"],
    starts: Int[Array, " R"],
    lengths: Int[Array, " R"],
    contexts: Int[Array, " R"],
    limits: Int[Array, " T"],
    *,
    window: int | None,
    interpret: bool = False,
    blocks: Blocks | None = None,
) -> Float[Array, "T N*H"]:
    """See `api.prefill_attention`."""
    num_rows, num_heads, head_dim = q.shape
    num_kv_heads = k_pages.shape[1]
    if head_dim < 16 or head_dim & (head_dim - 1):
        raise Unsupported(f"head_dim {head_dim} is not a power of two of at least 16.")
    if k_pages.shape[2] & (k_pages.shape[2] - 1):
        raise Unsupported(f"page size {k_pages.shape[2]} is not a power of two.")
    blocks = blocks or choose_blocks(head_dim, q.dtype)
    folded = pl.next_power_of_2(num_heads // num_kv_heads)
    tiles = cut(starts, lengths, num_rows, max(1, blocks.rows // folded))
    batch = _Batch(table, starts, lengths, contexts, limits, owned(starts, lengths, num_rows), tiles)
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    out = pl.pallas_call(
        functools.partial(_kernel, folded=folded, blocks=blocks, window=window),
        grid=(tiles.first.shape[0], num_kv_heads),
        in_specs=[anywhere, anywhere, anywhere, jax.tree.map(lambda _: anywhere, batch)],
        out_specs=anywhere,
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        interpret=interpret,
        name=f"prefill_attention_{head_dim}",
        compiler_params=plt.CompilerParams(num_warps=blocks.warps, num_stages=blocks.stages),
    )(q, k_pages, v_pages, batch)
    return out.reshape(num_rows, num_heads * head_dim)


def _kernel(q_ref, k_ref, v_ref, batch: _Batch, out_ref, *, folded: int, blocks: Blocks, window: int | None):
    num_rows, num_heads, head_dim = q_ref.shape
    kv_head, shared = pl.program_id(1), num_heads // k_ref.shape[1]
    block = max(1, blocks.rows // folded)
    lane = lax.iota(jnp.int32, block * folded)
    query, is_head = lane // folded, lane % folded < shared
    head = kv_head * shared + jnp.minimum(lane % folded, shared - 1)

    def at(ref, row):
        return ref.at[row[:, None], head[:, None], lax.iota(jnp.int32, head_dim)[None]]

    def store(row, keep, values):
        # The interpreter writes old values back where the mask is off: such rows go past the end.
        mask = jnp.broadcast_to(keep[:, None], values.shape)
        plt.store(at(out_ref, jnp.where(keep, row, num_rows)), values.astype(out_ref.dtype), mask=mask)

    # Program i also clears what nobody owns among the i-th `block` rows.
    row = pl.program_id(0) * block + query
    nobody = plt.load(batch.owned.at[jnp.minimum(row, num_rows - 1)]) == 0
    store(row, nobody & (row < num_rows) & is_head, jnp.zeros((block * folded, head_dim), out_ref.dtype))

    tile = pl.num_programs(0) - 1 - pl.program_id(0)  # the tiles with the most keys stand last: they start first
    first, count = plt.load(batch.tiles.first.at[tile]), plt.load(batch.tiles.count.at[tile])

    @pl.when(count > 0)
    def _():
        sequence = plt.load(batch.tiles.sequence.at[tile])
        context = plt.load(batch.contexts.at[sequence])
        row = first + jnp.minimum(query, count - 1)
        position = context - plt.load(batch.lengths.at[sequence]) - plt.load(batch.starts.at[sequence]) + row
        sight = _Sight(position, jnp.minimum(plt.load(batch.limits.at[row]), context - 1), window)
        keys = _Keys(k_ref, v_ref, batch.table, sequence, kv_head, blocks.keys)
        out = _attend(plt.load(at(q_ref, row)), keys, sight)
        # Read again: kept through the loop, the places to store to would spill registers at head_dim 512.
        again, remaining = (
            plt.load(batch.tiles.first.at[tile], volatile=True),
            plt.load(batch.tiles.count.at[tile], volatile=True),
        )
        store(again + query, (query < remaining) & is_head, out)


class _Keys(NamedTuple):
    """One sequence's keys and values of one head, read in tiles of `size` through the block table."""

    k_ref: Any
    v_ref: Any
    table: Any
    sequence: Any
    head: Any
    size: int

    def position(self, tile) -> Int[Array, " S"]:
        return tile * self.size + lax.iota(jnp.int32, self.size)

    def pages(self, tile) -> tuple[Any, ...]:
        """The pages of a tile, as scalars: a vector of them would cost every thread registers."""
        page_size, last = self.k_ref.shape[2], self.table.shape[1] - 1
        index = lax.div(tile * self.size, page_size)
        several = max(1, self.size // page_size)
        return tuple(plt.load(self.table.at[self.sequence, jnp.minimum(index + i, last)]) for i in range(several))

    def load(self, ref, tile, pages, keep=None) -> Float[Array, "S H"]:
        """A tile of keys or values; zeros where `keep` says no."""
        page_size, key = ref.shape[2], lax.iota(jnp.int32, self.size)
        page = pages[0]
        for i, following in enumerate(pages[1:], start=1):
            page = jnp.where(key < i * page_size, page, following)
        offset = key % page_size if len(pages) > 1 else key + lax.rem(tile * self.size, page_size)
        page = jnp.broadcast_to(page, key.shape)[:, None]
        rows = ref.at[page, self.head, offset[:, None], lax.iota(jnp.int32, ref.shape[3])[None]]
        if keep is None:
            return plt.load(rows)
        return plt.load(rows, mask=jnp.broadcast_to(keep[:, None], (self.size, ref.shape[3])), other=0)


class _Sight:
    """Which keys the rows of a tile see: `visible` per row, tiles `[first, last)` by any, `[inner, outer)` by all."""

    def __init__(self, position, limit, window: int | None):
        self.position, self.limit, self.window = position, limit, window
        self.begin = 0 if window is None else jnp.maximum(jnp.min(position) - window + 1, 0)
        self.end = jnp.max(limit) + 1

    def tiles(self, size: int):
        first, last = lax.div(self.begin, size), lax.div(self.end + size - 1, size)
        all_begin = 0 if self.window is None else jnp.maximum(jnp.max(self.position) - self.window + 1, 0)
        inner = jnp.clip(lax.div(all_begin + size - 1, size), first, last)
        outer = jnp.clip(lax.div(jnp.min(self.limit) + 1, size), inner, last)
        return first, inner, outer, last

    def visible(self, key):
        seen = key[None] <= self.limit[:, None]
        return seen if self.window is None else seen & (key[None] > self.position[:, None] - self.window)

    def any_visible(self, key):
        return (key >= self.begin) & (key < self.end)


def _attend(q: Float[Array, "M H"], keys: _Keys, sight: _Sight) -> Float[Array, "M H"]:
    """Online softmax over the keys in sight."""

    def step(tile, carry, *, masked: bool):
        top, total, out, pages = carry
        # Pages out of sight may hold NaN, and 0 * NaN would enter the sum.
        in_sight = sight.any_visible(keys.position(tile)) if masked else None
        k, v = keys.load(keys.k_ref, tile, pages), keys.load(keys.v_ref, tile, pages, in_sight)
        following = keys.pages(tile + 1)  # a tile ahead, or the loads of keys would wait for it and not be pipelined
        scores = _dot(q, k, contract=1) * LOG2E
        if masked:
            visible = sight.visible(keys.position(tile))
            scores = jnp.where(visible, scores, MASKED)
        new_top = jnp.maximum(top, jnp.max(scores, axis=1))
        shrink, p = jnp.exp2(top - new_top), jnp.exp2(scores - new_top[:, None])
        if masked:
            p = jnp.where(visible, p, 0)
        out = out * shrink[:, None] + _dot(p.astype(v.dtype), v, contract=0)
        return new_top, total * shrink + jnp.sum(p, axis=1), out, following

    masked, unmasked = functools.partial(step, masked=True), functools.partial(step, masked=False)
    first, inner, outer, last = sight.tiles(keys.size)
    rows = q.shape[0]
    carry = (jnp.full((rows,), MASKED, jnp.float32), jnp.zeros((rows,), jnp.float32), jnp.zeros(q.shape, jnp.float32))
    carry = (*carry, keys.pages(first))
    if sight.window is not None:
        carry = lax.fori_loop(first, inner, masked, carry)
    carry = lax.fori_loop(inner, outer, unmasked, carry)
    _, total, out, _ = lax.fori_loop(outer, last, masked, carry)
    return out / jnp.where(total > 0, total, 1)[:, None]


def _dot(a: Array, b: Array, *, contract: int) -> Array:
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(
        a, b, (((1,), (contract,)), ((), ())), precision=precision, preferred_element_type=jnp.float32
    )
