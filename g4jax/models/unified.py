"""Images without a tower (the 12B): 48 x 48 pixels become a soft token by one projection."""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, DTypeLike, Float, Int, UInt8

from g4jax.models.vision import CELL, unit_interval
from g4jax.nn.clipped import Linear
from g4jax.nn.param import param
from g4jax.tower_config import PATCH, POOLING, VisionEmbedderConfig

LAYER_NORM_EPS = 1e-5
"""No field of a config.json sets it."""


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis, in float32: weight, bias [D]."""

    def __init__(self, size: int, dtype: DTypeLike):
        self.weight = param((size,), (None,), dtype)
        self.bias = param((size,), (None,), dtype)

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(axis=-1, keepdims=True)
        normed = centred * lax.rsqrt((centred * centred).mean(axis=-1, keepdims=True) + LAYER_NORM_EPS)
        weight, bias = self.weight[...], self.bias[...]
        return (normed * weight.astype(jnp.float32) + bias.astype(jnp.float32)).astype(x.dtype)


class Dense(Linear):
    """x @ weight.T + bias: weight [N, K], bias [N]."""

    def __init__(self, n: int, k: int, dtype: DTypeLike):
        super().__init__(n, k, dtype)
        self.bias = param((n,), (None,), dtype)

    def __call__(self, x: Float[Array, "*B K"]) -> Float[Array, "*B N"]:
        return super().__call__(x) + self.bias[...]


class VisionEmbedder(nnx.Module):
    """norm(norm(dense(norm(p))) + table[x, 0] + table[y, 1]), pos_embedding [S, 2, D].

    In the checkpoint the parameters stand below `model.vision_embedder.`: `patch_ln1`, `patch_dense`, `patch_ln2` and
    `pos_norm` with `.weight` and `.bias`, and `pos_embedding`. (Inside transformers they are `embed_vision.*`; it
    renames on load and back on save.) The projection that follows is not among them: as in the other releases it is
    `model.embed_vision.embedding_projection.weight`.
    """

    def __init__(self, config: VisionEmbedderConfig, *, dtype: DTypeLike = jnp.bfloat16):
        d, pixels = config.hidden_size, 3 * (POOLING * PATCH) ** 2
        self.patch_ln1 = LayerNorm(pixels, dtype)
        self.patch_dense = Dense(d, pixels, dtype)
        self.patch_ln2 = LayerNorm(d, dtype)
        self.pos_embedding = param((config.position_embedding_size, 2, d), (None, None, None), dtype)
        self.pos_norm = LayerNorm(d, dtype)

    def __call__(self, pixels: UInt8[Array, "P 768"], x: Int[Array, " P"], y: Int[Array, " P"]) -> Float[Array, "T D"]:
        """Soft tokens of images, T = P / 9; pixels, x and y as of `VisionTower`."""
        table = self.pos_embedding[...]
        h = self.patch_ln1(squares(unit_interval(pixels).astype(table.dtype)))
        h = self.patch_ln2(self.patch_dense(h))
        columns, rows = x[::CELL] // POOLING, y[::CELL] // POOLING
        return self.pos_norm(h + (table[columns, 0] + table[rows, 1]))


def squares(patches: Float[Array, "P 768"]) -> Float[Array, "T 6912"]:
    """Every nine patches as one square of 48 x 48 pixels (row, column, RGB)."""
    parts = patches.reshape(-1, POOLING, POOLING, PATCH, PATCH, 3)
    return parts.swapaxes(2, 3).reshape(-1, 3 * (POOLING * PATCH) ** 2)
