"""The norms in plain jax.numpy: float32 inside, every step rounded once to the dtype of the stream."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import DTypeLike, Float

Splits = Float[Array, "R _"] | Float[Array, "_ R _"]
"""A product [R, C], or float32 sums [S, R, C] over S parts of its depth: the product is their sum, rounded."""


class Residual(NamedTuple):
    """The residual stream `x' = (x + rms_norm(y) * weight) * scale`, not computed yet.

    A block's output meets the stream in the first kernel of the next block, so the sum is handed on as its parts.
    """

    x: Float[Array, "R D"]
    y: Splits | None = None
    """The last block's output; None: nothing is added."""
    weight: Float[Array, " D"] | None = None
    """The weight of the norm after the block; None: the norm has no weight."""
    scale: Float[Array, " one"] | None = None
    """The layer's scalar, an array of one element; None: no factor."""


def rms_norm(x: Float[Array, "... D"], weight: Float[Array, " D"] | None, *, eps: float) -> Float[Array, "... D"]:
    """`x * (mean(x^2) + eps)^-0.5 * weight` over the last axis (the factor is `weight`, not `1 + weight`)."""
    wide = x.astype(jnp.float32)
    normed = wide * lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    if weight is not None:
        normed = normed * weight.astype(jnp.float32)
    return normed.astype(x.dtype)


def add_rms_norm(
    residual: Residual, then: tuple[Float[Array, " D"], ...], *, eps: float
) -> tuple[Float[Array, "R D"], tuple[Float[Array, "R D"], ...]]:
    """Computes the stream x' [R, D] and `rms_norm(x') * weight` [R, D] for every weight of `then`."""
    x, y, weight, scale = residual
    if y is not None:
        x = x + rms_norm(summed(y, x.dtype), weight, eps=eps)
    if scale is not None:
        x = x * scale.astype(x.dtype)
    return x, tuple(rms_norm(x, w, eps=eps) for w in then)


def summed(y: Splits, dtype: DTypeLike) -> Float[Array, "R C"]:
    """The product that `y` stands for: a sum of splits is rounded once, to `dtype`."""
    return y if y.ndim == 2 else jnp.sum(y, axis=0).astype(dtype)


def sum_rms_norm(
    parts: tuple[Float[Array, "R D"], ...], weights: tuple[Float[Array, " D"], ...], *, eps: float
) -> Float[Array, "R D"]:
    """The sum of `rms_norm(part) * weight`, each rounded before it is added."""
    first, *others = (rms_norm(part, weight, eps=eps) for part, weight in zip(parts, weights, strict=True))
    return sum(others, first)
