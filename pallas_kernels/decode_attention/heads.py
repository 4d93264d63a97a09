"""Heads as a program of decode attention takes them from a row of q|k|v: normed and rotated as whole tiles.

A program cannot take a tile apart, so beside each value its partner in the rotation is loaded and normed as well.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.pallas import triton as plt

from pallas_kernels.norm.triton import rounded


class RawHeads(NamedTuple):
    """Heads [R, H] as they stand in memory, beside each value its partner in the rotation, and the norm's weights.

    Loads come before the first reduction, whatever they are for: a program then waits for memory once.
    """

    x: Array
    partner: Array
    weights: tuple[Array, Array] | None


def load_heads(ref: Any, row: Array, head: Array, weight_ref: Any | None, head_dim: int) -> RawHeads:
    """Heads `head` [R] of one row of `ref` [T, C]."""
    columns = lax.iota(jnp.int32, head_dim), _exchanged(head_dim)
    first = head[:, None] * head_dim
    x, partner = (plt.load(ref.at[row, first + c[None]]) for c in columns)
    if weight_ref is None:
        return RawHeads(x, partner, None)
    weight, other = (plt.load(weight_ref.at[c]) for c in columns)
    return RawHeads(x, partner, (weight, other))


def load_value(ref: Any, row: Array, key_head: Array, kv_heads: int, k_eq_v: bool, head_dim: int) -> RawHeads:
    """The values beside the keys that lie at `key_head` [R]."""
    return load_heads(ref, row, key_head if k_eq_v else key_head + kv_heads, None, head_dim)


def load_rotation(cos_ref: Any, sin_ref: Any, row: Array, head_dim: int) -> tuple[Array, Array]:
    """cos and the signed sin [H] of one row."""
    column, half = lax.iota(jnp.int32, head_dim), head_dim // 2
    angle = jnp.where(column < half, column, column - half)
    cos, sin = (plt.load(ref.at[row, angle]).astype(jnp.float32) for ref in (cos_ref, sin_ref))
    return cos, jnp.where(column < half, -sin, sin)


def normed(heads: RawHeads, eps: float) -> Array:
    """`rms(x) * weight`: float32 [R, H], rounded to the heads' dtype."""
    return _normed_pair(heads, eps)[0]


def normed_rope(heads: RawHeads, rotation: tuple[Array, Array], eps: float) -> Array:
    """`rope(rms(x) * weight)` [R, H], rounded likewise."""
    x, partner = _normed_pair(heads, eps)
    cos, sin = rotation
    return rounded(x * cos[None] + partner * sin[None], heads.x.dtype)


def _exchanged(head_dim: int) -> Array:
    """The column of each column's partner: the two halves of a head exchanged."""
    column, half = lax.iota(jnp.int32, head_dim), head_dim // 2
    return jnp.where(column < half, column + half, column - half)


def _normed_pair(heads: RawHeads, eps: float) -> tuple[Array, Array]:
    x, partner = (part.astype(jnp.float32) for part in heads[:2])
    scale = lax.rsqrt(jnp.sum(x * x, axis=1) * (1.0 / x.shape[1]) + eps)[:, None]
    x, partner = x * scale, partner * scale
    if heads.weights is not None:
        weight, other = (part.astype(jnp.float32) for part in heads.weights)
        x, partner = x * weight[None], partner * other[None]
    return rounded(x, heads.x.dtype), rounded(partner, heads.x.dtype)
