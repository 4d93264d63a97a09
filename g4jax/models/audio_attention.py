"""Attention of the audio tower: every token to itself and the few before it, by content and by distance."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, DTypeLike, Float

from g4jax.nn.clipped import ClippedLinear, Linear
from g4jax.nn.param import param
from g4jax.tower_config import AudioConfig

_K_SCALE = math.log(1 + math.e) / math.log(2)


class BandAttention(nnx.Module):
    """softmax over distances d of cap * tanh((q_i . k_(i-d) + q_i . r_d) / cap), in float32; r_d encodes d.

    The terms of arXiv:1901.02860 without its biases. A token sees `config.context` tokens, itself among them; the
    reference computes the same in blocks.
    """

    def __init__(self, config: AudioConfig, dtype: DTypeLike):
        d = config.hidden_size
        self.q_proj = ClippedLinear(d, d, config.clipped, dtype)
        self.k_proj = ClippedLinear(d, d, config.clipped, dtype)
        self.v_proj = ClippedLinear(d, d, config.clipped, dtype)
        self.post = ClippedLinear(d, d, config.clipped, dtype)
        self.relative_k_proj = Linear(d, d, dtype)
        self.per_dim_scale = param((config.head_dim,), (None,), dtype)
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        self.context, self.cap, self.invalid = config.context, config.logit_cap, config.invalid_logit

    def __call__(self, x: Float[Array, "T D"]) -> Float[Array, "T D"]:
        scale = self.head_dim**-0.5 / math.log(2)
        q = self._heads(self.q_proj(x)) * scale * _softplus(self.per_dim_scale[...])
        k = self._heads(self.k_proj(x)) * _K_SCALE
        v = self._heads(self.v_proj(x))
        scores = (q[:, None] * band(k, self.context)).sum(-1) + self._by_distance(q)
        scores = jnp.tanh(scores / self.cap) * self.cap
        exists = jnp.arange(x.shape[0])[:, None] >= jnp.arange(self.context)
        weights = jax.nn.softmax(jnp.where(exists[:, :, None], scores, self.invalid), axis=1)
        attended = (weights[..., None] * band(v, self.context)).sum(1)
        return self.post(attended.reshape(x.shape).astype(x.dtype))

    def _heads(self, x: Float[Array, "R D"]) -> Float[Array, "R N H"]:
        return x.astype(jnp.float32).reshape(x.shape[0], self.num_heads, self.head_dim)

    def _by_distance(self, q: Float[Array, "T N H"]) -> Float[Array, "T K N"]:
        dtype = self.relative_k_proj.weight[...].dtype
        distances = jnp.asarray(sinusoids(self.context, self.num_heads * self.head_dim), dtype)
        r = self._heads(self.relative_k_proj(distances))
        return jnp.einsum("tnh,knh->tkn", q, r, precision=lax.Precision.HIGHEST)


def band(x: Float[Array, "T N H"], context: int) -> Float[Array, "T K N H"]:
    """Row t holds x[t], x[t-1], ..., x[t - context + 1]; zeros before the beginning."""
    tokens = x.shape[0]
    padded = jnp.pad(x, ((context - 1, 0), (0, 0), (0, 0)))
    starts = range(context - 1, -1, -1)
    return jnp.stack([padded[start : start + tokens] for start in starts], axis=1)


def sinusoids(count: int, size: int) -> Float[np.ndarray, "count size"]:
    """[sin(d t_n), cos(d t_n)] of distances d = 0, 1, ...; the frequencies t_n fall from 1 to 1/10000."""
    half = size // 2
    frequencies = np.exp(np.arange(half) * (-math.log(10_000) / max(half - 1, 1)))
    angles = np.arange(count)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _softplus(x: Array) -> Array:
    # In float32 and then rounded, as the reference computes it of bfloat16.
    return jax.nn.softplus(x.astype(jnp.float32)).astype(x.dtype).astype(jnp.float32)
