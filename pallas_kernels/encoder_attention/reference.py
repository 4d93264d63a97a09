"""Encoder attention in plain jax.numpy, some queries at a time so that memory stays bounded."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

BLOCK = 128


def encoder_attention(
    q: Float[Array, "P N H"],
    k: Float[Array, "P N H"],
    v: Float[Array, "P N H"],
    first: Int[Array, " P"],
    last: Int[Array, " P"],
) -> Float[Array, "P N H"]:
    """See `api.encoder_attention`. Holds the scores of `BLOCK` queries at a time."""
    num_rows = q.shape[0]
    block = min(BLOCK, num_rows)
    key = jnp.arange(num_rows)
    precision = lax.Precision.HIGHEST if q.dtype == jnp.float32 else None

    def attend(queries):
        q, first, last = queries
        visible = (key >= first[:, None]) & (key < last[:, None])
        scores = jnp.einsum("tnh,snh->nts", q, k, preferred_element_type=jnp.float32, precision=precision)
        weights = jax.nn.softmax(jnp.where(visible, scores, -1e30), axis=-1) * visible
        return jnp.einsum("nts,snh->tnh", weights.astype(v.dtype), v, precision=precision)

    def blocks(x: Array) -> Array:
        padded = jnp.pad(x, [(0, -num_rows % block)] + [(0, 0)] * (x.ndim - 1))
        return padded.reshape(-1, block, *x.shape[1:])

    out = lax.map(attend, (blocks(q), blocks(first), blocks(last)))
    return out.reshape(-1, *q.shape[1:])[:num_rows]
