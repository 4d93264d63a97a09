"""Encoder attention as one Pallas kernel (Triton).

A program owns a block of queries and one head, and walks over the keys that any of its queries sees. Where all of them
see all keys of a tile, which is nearly everywhere, it runs without a mask: the loop is cut in three.
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

LOG2E = 1.4426950408889634
MASKED = -1e30
"""Score of a key out of sight. Finite: -inf - -inf would be NaN in a row that sees no key of a tile."""


class Blocks(NamedTuple):
    """Sizes of one program: queries, keys per tile, warps, stages of the load pipeline."""

    queries: int
    keys: int
    warps: int
    stages: int


def choose_blocks(head_dim: int, dtype: jnp.dtype) -> Blocks:
    """Sizes that spill no registers on an H200."""
    if dtype == jnp.float32:  # full precision runs without tensor cores
        return Blocks(queries=16, keys=16, warps=4, stages=1)
    return Blocks(queries=128, keys=64, warps=8, stages=3)


class Part(NamedTuple):
    """Columns `start` to `start + size` of a head, `used` of which are there."""

    start: int
    size: int
    used: int


def cut(head_dim: int) -> tuple[Part, ...]:
    """A head as parts of sizes that Triton has: 72 = 64 + 8 (as 16), far less than one part of 128."""
    size = max(16, 1 << (head_dim.bit_length() - 1))
    if size >= head_dim:
        return (Part(0, size, head_dim),)
    rest = max(16, pl.next_power_of_2(head_dim - size))
    return (Part(0, size, size), Part(size, rest, head_dim - size))


@launcher("interpret", "blocks")
def encoder_attention(
    q: Float[Array, "P N H"],
    k: Float[Array, "P N H"],
    v: Float[Array, "P N H"],
    first: Int[Array, " P"],
    last: Int[Array, " P"],
    *,
    interpret: bool = False,
    blocks: Blocks | None = None,
) -> Float[Array, "P N H"]:
    """See `api.encoder_attention`."""
    num_rows, num_heads, head_dim = q.shape
    if head_dim > 128:
        raise Unsupported(f"head_dim {head_dim} is more than 128.")
    blocks = blocks or choose_blocks(head_dim, q.dtype)
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    return pl.pallas_call(
        functools.partial(_kernel, parts=cut(head_dim), blocks=blocks),
        grid=(pl.cdiv(num_rows, blocks.queries), num_heads),
        in_specs=[anywhere] * 5,
        out_specs=anywhere,
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        interpret=interpret,
        name=f"encoder_attention_{head_dim}",
        compiler_params=plt.CompilerParams(num_warps=blocks.warps, num_stages=blocks.stages),
    )(q, k, v, first.astype(jnp.int32), last.astype(jnp.int32))


def _kernel(q_ref, k_ref, v_ref, first_ref, last_ref, out_ref, *, parts: tuple[Part, ...], blocks: Blocks):
    num_rows = q_ref.shape[0]
    row = pl.program_id(0) * blocks.queries + lax.iota(jnp.int32, blocks.queries)
    there = row < num_rows
    first, last = plt.load(first_ref.at[row], mask=there, other=0), plt.load(last_ref.at[row], mask=there, other=0)
    head = _Head(pl.program_id(1), parts, num_rows)
    out = _attend(head.load(q_ref, row, there), k_ref, v_ref, head, first, last, blocks.keys)
    for part, values in zip(parts, out, strict=True):
        mask = jnp.broadcast_to(there[:, None], values.shape) & head.columns(part, values.shape[0])
        plt.store(head.at(out_ref, row, part), values.astype(out_ref.dtype), mask=mask)


class _Head(NamedTuple):
    """One head of the operands, in parts."""

    index: Any
    parts: tuple[Part, ...]
    num_rows: int

    def at(self, ref, row, part: Part):
        return ref.at[row[:, None], self.index, part.start + lax.iota(jnp.int32, part.size)[None]]

    def columns(self, part: Part, rows: int):
        return jnp.broadcast_to(lax.iota(jnp.int32, part.size)[None] < part.used, (rows, part.size))

    def load(self, ref, row, keep=None) -> tuple[Any, ...]:
        """The parts of some rows; zeros in columns that are not there, and where `keep` says no."""
        return tuple(self._load(ref, row, part, keep) for part in self.parts)

    def _load(self, ref, row, part: Part, keep):
        whole = part.used == part.size
        if keep is None and whole:
            return plt.load(self.at(ref, row, part))
        mask = self.columns(part, row.shape[0])
        if keep is not None:
            mask = keep[:, None] & mask
        return plt.load(self.at(ref, row, part), mask=mask, other=0)


def _attend(q, k_ref, v_ref, head: _Head, first: Int[Array, " M"], last: Int[Array, " M"], size: int):
    """Online softmax over the keys in sight, in tiles of `size`."""

    def step(tile, carry, *, masked: bool):
        top, total, out = carry
        key = tile * size + lax.iota(jnp.int32, size)
        there = key < head.num_rows if masked else None
        k, v = head.load(k_ref, key, there), head.load(v_ref, key, there)
        scores = sum(_dot(a, b, contract=1) for a, b in zip(q, k, strict=True)) * LOG2E
        if masked:
            visible = (key[None] >= first[:, None]) & (key[None] < last[:, None])
            scores = jnp.where(visible, scores, MASKED)
        new_top = jnp.maximum(top, jnp.max(scores, axis=1))
        shrink, p = jnp.exp2(top - new_top), jnp.exp2(scores - new_top[:, None])
        if masked:
            p = jnp.where(visible, p, 0)
        weights = p.astype(v[0].dtype)
        out = tuple(o * shrink[:, None] + _dot(weights, part, contract=0) for o, part in zip(out, v, strict=True))
        return new_top, total * shrink + jnp.sum(p, axis=1), out

    masked, unmasked = functools.partial(step, masked=True), functools.partial(step, masked=False)
    begin, inner, outer, end = _tiles(first, last, head.num_rows, size)
    rows = first.shape[0]
    zeros = tuple(jnp.zeros(part.shape, jnp.float32) for part in q)
    carry = (jnp.full((rows,), MASKED, jnp.float32), jnp.zeros((rows,), jnp.float32), zeros)
    carry = lax.fori_loop(begin, inner, masked, carry)
    carry = lax.fori_loop(inner, outer, unmasked, carry)
    _, total, out = lax.fori_loop(outer, end, masked, carry)
    # A row that sees nothing may have met anything where no mask is made.
    sees = (first < last)[:, None]
    return tuple(jnp.where(sees, part / total[:, None], 0) for part in out)


def _tiles(first: Int[Array, " M"], last: Int[Array, " M"], num_rows: int, size: int):
    """Tiles `[begin, end)` are seen by some row, `[inner, outer)` by all that see anything."""
    sees = first < last
    begin = lax.div(jnp.min(jnp.where(sees, first, num_rows)), size)
    end = lax.div(jnp.max(jnp.where(sees, last, 0)) + size - 1, size)
    inner = jnp.clip(lax.div(jnp.max(jnp.where(sees, first, 0)) + size - 1, size), begin, jnp.maximum(begin, end))
    outer = jnp.clip(lax.div(jnp.min(jnp.where(sees, last, num_rows)), size), inner, jnp.maximum(inner, end))
    return begin, inner, outer, end


def _dot(a: Array, b: Array, *, contract: int) -> Array:
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(
        a, b, (((1,), (contract,)), ((), ())), precision=precision, preferred_element_type=jnp.float32
    )
