"""Encoder attention in plain jax.numpy, some queries at a time so that memory stays bounded."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

BLOCK = 128


def encoder_attention(
    q: Float[Array, "I P N H"],
    k: Float[Array, "I P N H"],
    v: Float[Array, "I P N H"],
    lengths: Int[Array, " I"],
) -> Float[Array, "I P N H"]:
    """See `api.encoder_attention`. Holds the scores of `BLOCK` queries of every slot at a time."""
    images, rows = q.shape[:2]
    block = min(BLOCK, rows)
    visible = jnp.arange(rows) < lengths[:, None, None, None]
    precision = lax.Precision.HIGHEST if q.dtype == jnp.float32 else None

    def attend(queries: Float[Array, "I B N H"]) -> Float[Array, "I B N H"]:
        scores = jnp.einsum("ipnh,isnh->inps", queries, k, preferred_element_type=jnp.float32, precision=precision)
        weights = jax.nn.softmax(jnp.where(visible, scores, -1e30), axis=-1) * visible
        return jnp.einsum("inps,isnh->ipnh", weights.astype(v.dtype), v, precision=precision)

    padded = jnp.pad(q, [(0, 0), (0, -rows % block), (0, 0), (0, 0)])
    blocks = padded.reshape(images, -1, block, *q.shape[2:]).swapaxes(0, 1)
    out = lax.map(attend, blocks).swapaxes(0, 1).reshape(padded.shape)[:, :rows]
    return jnp.where(jnp.arange(rows)[:, None, None] < lengths[:, None, None, None], out, 0)
