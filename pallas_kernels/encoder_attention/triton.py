"""Encoder attention as one Pallas kernel (Triton).

A program owns a block of queries of one image and one head, and walks over the image's keys.
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
"""Score of a key out of sight: finite, because -inf - -inf would be NaN."""


class Blocks(NamedTuple):
    """Sizes of one program: queries, keys per tile, warps, stages of the load pipeline."""

    queries: int
    keys: int
    warps: int
    stages: int


def choose_blocks(head_dim: int, dtype: jnp.dtype) -> Blocks:
    """The fastest on an H200 of those that spill no registers (docs/performance.md)."""
    if dtype == jnp.float32:  # full precision runs without tensor cores
        return Blocks(queries=16, keys=16, warps=4, stages=1)
    if head_dim <= 64:
        return Blocks(queries=64, keys=64, warps=4, stages=3)
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
    q: Float[Array, "I P N H"],
    k: Float[Array, "I P N H"],
    v: Float[Array, "I P N H"],
    lengths: Int[Array, " I"],
    *,
    interpret: bool = False,
    blocks: Blocks | None = None,
) -> Float[Array, "I P N H"]:
    """See `api.encoder_attention`."""
    images, rows, num_heads, head_dim = q.shape
    if head_dim > 128:
        raise Unsupported(f"head_dim {head_dim} is more than 128.")
    blocks = blocks or choose_blocks(head_dim, q.dtype)
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    return pl.pallas_call(
        functools.partial(_kernel, parts=cut(head_dim), blocks=blocks),
        grid=(pl.cdiv(rows, blocks.queries), num_heads, images),
        in_specs=[anywhere] * 4,
        out_specs=anywhere,
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        interpret=interpret,
        name=f"encoder_attention_{head_dim}",
        compiler_params=plt.CompilerParams(num_warps=blocks.warps, num_stages=blocks.stages),
    )(q, k, v, lengths.astype(jnp.int32))


def _kernel(q_ref, k_ref, v_ref, lengths_ref, out_ref, *, parts: tuple[Part, ...], blocks: Blocks):
    row = pl.program_id(0) * blocks.queries + lax.iota(jnp.int32, blocks.queries)
    image = pl.program_id(2)
    length = plt.load(lengths_ref.at[image])
    head = _Head(image, pl.program_id(1), parts)
    visible = row < length
    # A block without a query has no keys to walk over either.
    end = jnp.where(pl.program_id(0) * blocks.queries < length, length, 0)
    out = _attend(head.load(q_ref, row, visible), k_ref, v_ref, head, end, blocks.keys)
    for part, values in zip(parts, out, strict=True):
        there = jnp.broadcast_to((row < out_ref.shape[1])[:, None], values.shape)
        mask = there & head.columns(part, values.shape[0])
        values = jnp.where(visible[:, None], values, 0)
        plt.store(head.at(out_ref, row, part), values.astype(out_ref.dtype), mask=mask)


class _Head(NamedTuple):
    """One head of one slot of the operands, in parts."""

    image: Any
    index: Any
    parts: tuple[Part, ...]

    def at(self, ref, row, part: Part):
        return ref.at[self.image, row[:, None], self.index, part.start + lax.iota(jnp.int32, part.size)[None]]

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


def _attend(q, k_ref, v_ref, head: _Head, length, size: int) -> tuple[Array, ...]:
    """Online softmax over the first `length` keys, in tiles of `size`: whole ones, then the rest under a mask."""

    def step(tile, carry, *, masked: bool):
        top, total, out = carry
        key = tile * size + lax.iota(jnp.int32, size)
        visible = key < length if masked else None
        k, v = head.load(k_ref, key, visible), head.load(v_ref, key, visible)
        scores = sum(_dot(a, b, contract=1) for a, b in zip(q, k, strict=True)) * LOG2E
        if visible is not None:
            scores = jnp.where(visible[None], scores, MASKED)
        new_top = jnp.maximum(top, jnp.max(scores, axis=1))
        shrink, p = jnp.exp2(top - new_top), jnp.exp2(scores - new_top[:, None])
        weights = p.astype(v[0].dtype)
        out = tuple(o * shrink[:, None] + _dot(weights, part, contract=0) for o, part in zip(out, v, strict=True))
        return new_top, total * shrink + jnp.sum(p, axis=1), out

    rows, whole = q[0].shape[0], lax.div(length, size)
    zeros = tuple(jnp.zeros(part.shape, jnp.float32) for part in q)
    carry = (jnp.full((rows,), MASKED, jnp.float32), jnp.zeros((rows,), jnp.float32), zeros)
    carry = lax.fori_loop(0, whole, functools.partial(step, masked=False), carry)
    _, total, out = lax.fori_loop(whole, lax.div(length + size - 1, size), functools.partial(step, masked=True), carry)
    return tuple(part / total[:, None] for part in out)


def _dot(a: Array, b: Array, *, contract: int) -> Array:
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(
        a, b, (((1,), (contract,)), ((), ())), precision=precision, preferred_element_type=jnp.float32
    )
