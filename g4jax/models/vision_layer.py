"""One layer of the vision tower: attention over all patches of an image, and a gated MLP."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Int

from g4jax.config import RopeSpec
from g4jax.nn.clipped import ClippedLinear
from g4jax.nn.norm import RMSNorm
from g4jax.nn.rope import rope_tables
from g4jax.tower_config import VisionConfig
from pallas_kernels.core import Implementation
from pallas_kernels.encoder_attention import encoder_attention
from pallas_kernels.norm import rms_norm


class Patches(NamedTuple):
    """Where the patches of I images stand: the angles of their rotary embedding, and how many each image has.

    Every image has P / I rows, of which the first `lengths[i]` are there.
    """

    cos: Float[Array, "P 2 A"]
    sin: Float[Array, "P 2 A"]
    lengths: Int[Array, " I"]


def axial_tables(
    config: VisionConfig, x: Int[Array, " P"], y: Int[Array, " P"], dtype: DTypeLike
) -> tuple[Float[Array, "P 2 A"], Float[Array, "P 2 A"]]:
    """cos and sin of both axes, A = head_dim / 4 angles each: half of a head turns with x, the other half with y."""
    spec = RopeSpec(config.rope_theta, config.head_dim // 2, config.head_dim // 4)
    tables = zip(rope_tables(spec, x, dtype), rope_tables(spec, y, dtype), strict=True)
    cos, sin = (jnp.stack(axes, axis=1) for axes in tables)
    return cos, sin


def axial_rope(heads: Float[Array, "P N H"], patches: Patches) -> Float[Array, "P N H"]:
    """Turns the pairs (i, i + H/4) of a head's first half by x, and those of its second half by y."""
    pairs = heads.reshape(*heads.shape[:2], 2, 2, -1)
    a, b = pairs[:, :, :, 0], pairs[:, :, :, 1]
    cos, sin = patches.cos[:, None], patches.sin[:, None]
    return jnp.stack((a * cos - b * sin, b * cos + a * sin), axis=3).reshape(heads.shape)


class VisionAttention(nnx.Module):
    """q, k, v, o projections, norms of q and k per head; v is normed without a weight. The score scale is 1."""

    def __init__(self, config: VisionConfig, dtype: DTypeLike, implementation: Implementation | None):
        d, heads, eps = config.hidden_size, config.num_heads * config.head_dim, config.rms_norm_eps
        self.q_proj = ClippedLinear(heads, d, config.clipped, dtype)
        self.k_proj = ClippedLinear(heads, d, config.clipped, dtype)
        self.v_proj = ClippedLinear(heads, d, config.clipped, dtype)
        self.o_proj = ClippedLinear(d, heads, config.clipped, dtype)
        self.q_norm = RMSNorm(config.head_dim, eps, dtype)
        self.k_norm = RMSNorm(config.head_dim, eps, dtype)
        self.head_dim, self.eps = config.head_dim, eps
        self.implementation: Implementation | None = implementation

    def __call__(self, h: Float[Array, "P D"], patches: Patches) -> Float[Array, "P D"]:
        q, k, v = (self._heads(project(h)) for project in (self.q_proj, self.k_proj, self.v_proj))
        q, k = axial_rope(self.q_norm(q), patches), axial_rope(self.k_norm(k), patches)
        v = rms_norm(v, None, eps=self.eps)
        return self.o_proj(self._attend(q, k, v, patches.lengths).reshape(h.shape[0], -1))

    def _attend(
        self, q: Float[Array, "P N H"], k: Float[Array, "P N H"], v: Float[Array, "P N H"], lengths: Int[Array, " I"]
    ) -> Float[Array, "I R N H"]:
        """Image by image."""
        q, k, v = (heads.reshape(len(lengths), -1, *heads.shape[1:]) for heads in (q, k, v))
        return encoder_attention(q, k, v, lengths, implementation=self.implementation)

    def _heads(self, x: Float[Array, "P NH"]) -> Float[Array, "P N H"]:
        return x.reshape(x.shape[0], -1, self.head_dim)


class VisionMLP(nnx.Module):
    """down(gelu(gate x) * up x). Gate and up stay apart: each may have bounds of its own."""

    def __init__(self, config: VisionConfig, dtype: DTypeLike):
        d, f = config.hidden_size, config.intermediate_size
        self.gate_proj = ClippedLinear(f, d, config.clipped, dtype)
        self.up_proj = ClippedLinear(f, d, config.clipped, dtype)
        self.down_proj = ClippedLinear(d, f, config.clipped, dtype)

    def __call__(self, h: Float[Array, "P D"]) -> Float[Array, "P D"]:
        return self.down_proj(jax.nn.gelu(self.gate_proj(h), approximate=True) * self.up_proj(h))


class VisionLayer(nnx.Module):
    """v += post(attention(pre(v))); v += post(mlp(pre(v)))."""

    def __init__(self, config: VisionConfig, dtype: DTypeLike, implementation: Implementation | None):
        d, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(d, eps, dtype)
        self.self_attn = VisionAttention(config, dtype, implementation)
        self.post_attention_layernorm = RMSNorm(d, eps, dtype)
        self.pre_feedforward_layernorm = RMSNorm(d, eps, dtype)
        self.mlp = VisionMLP(config, dtype)
        self.post_feedforward_layernorm = RMSNorm(d, eps, dtype)

    def __call__(self, v: Float[Array, "P D"], patches: Patches) -> Float[Array, "P D"]:
        v = v + self.post_attention_layernorm(self.self_attn(self.input_layernorm(v), patches))
        return v + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(v)))
