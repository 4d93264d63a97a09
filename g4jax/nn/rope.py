"""Rotary position embedding, half-split: element i turns with element i + head_dim/2."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Int

from g4jax.config import RopeSpec


def inverse_frequencies(spec: RopeSpec) -> np.ndarray:
    """theta^(-2i/head_dim) for the rotated pairs, 0 for the rest: float32 `[head_dim/2]`.

    The exponent's denominator is the whole head_dim also where only a part of the pairs turns ("proportional" RoPE).
    """
    pairs = np.arange(spec.head_dim // 2)
    frequencies = 1.0 / spec.theta ** (2.0 * pairs / spec.head_dim)
    return np.where(pairs < spec.rotated_pairs, frequencies, 0.0).astype(np.float32)


def rope_tables(
    spec: RopeSpec, positions: Int[Array, " R"], dtype: DTypeLike
) -> tuple[Float[Array, "R P"], Float[Array, "R P"]]:
    """cos and sin of every position's angles, `[R, head_dim/2]`: float32 angles, tables in `dtype` as the reference."""
    angles = positions.astype(jnp.float32)[:, None] * inverse_frequencies(spec)
    return jnp.cos(angles).astype(dtype), jnp.sin(angles).astype(dtype)
