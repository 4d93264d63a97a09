"""The vision tower: patches of images to soft tokens.

Parameters are called as the checkpoint calls them below `model.vision_tower.`.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Int, UInt8

from g4jax.models.vision_layer import Patches, VisionLayer, axial_tables
from g4jax.nn.clipped import Linear
from g4jax.nn.param import param
from g4jax.tower_config import PATCH, POOLING, VisionConfig
from pallas_kernels.core import Implementation

CELL = POOLING**2
"""Patches of a soft token."""


def unit_interval(pixels: UInt8[Array, "P C"]) -> Float[Array, "P C"]:
    """Pixels from 0 to 1, in float32."""
    return pixels.astype(jnp.float32) * jnp.float32(1 / 255)


class PatchEmbedder(nnx.Module):
    """W (2 (p - 1/2)) + table[0, x] + table[1, y]: input_proj [D, 768], position_embedding_table [2, S, D]."""

    def __init__(self, config: VisionConfig, dtype: DTypeLike):
        self.input_proj = Linear(config.hidden_size, 3 * PATCH**2, dtype)
        size = (2, config.position_embedding_size, config.hidden_size)
        self.position_embedding_table = param(size, (None, None, None), dtype)

    def __call__(self, pixels: UInt8[Array, "P 768"], x: Int[Array, " P"], y: Int[Array, " P"]) -> Float[Array, "P D"]:
        table = self.position_embedding_table[...]
        centred = (2 * (unit_interval(pixels) - 0.5)).astype(table.dtype)
        return self.input_proj(centred) + (table[0, x] + table[1, y])


class VisionEncoder(nnx.Module):
    """The layers, one after the other."""

    def __init__(self, config: VisionConfig, dtype: DTypeLike, implementation: Implementation | None):
        self.layers = nnx.List(VisionLayer(config, dtype, implementation) for _ in range(config.num_layers))

    def __call__(self, v: Float[Array, "P D"], patches: Patches) -> Float[Array, "P D"]:
        for layer in self.layers:
            v = layer(v, patches)
        return v


class VisionTower(nnx.Module):
    """Patch embedding, layers, the mean of every 3 x 3 patches times sqrt(D), and what `standardize` adds.

    There is no last norm: it belongs to the projection to the text's width. `implementation` chooses the attention
    (None: by backend); only the reference has a gradient.
    """

    def __init__(
        self,
        config: VisionConfig,
        *,
        dtype: DTypeLike = jnp.bfloat16,
        implementation: Implementation | None = None,
    ):
        d = config.hidden_size
        self.config = config
        self.patch_embedder = PatchEmbedder(config, dtype)
        self.encoder = VisionEncoder(config, dtype, implementation)
        self.std_bias = param((d,), (None,), dtype) if config.standardize else None
        self.std_scale = param((d,), (None,), dtype) if config.standardize else None

    def __call__(
        self,
        pixels: UInt8[Array, "P 768"],
        x: Int[Array, " P"],
        y: Int[Array, " P"],
        lengths: Int[Array, " I"],
    ) -> Float[Array, "T D"]:
        """Soft tokens of I images, T = P / 9; every image has P / I rows, and those it does not need are padding.

        Args:
          pixels: patches of 16 x 16 pixels (row, column, RGB), nine by nine: those of one soft token stand together.
          x: column of each patch in its image, counted in patches.
          y: row of each patch.
          lengths: patches of each image; nothing attends to those beyond.
        """
        v = self.patch_embedder(pixels, x, y)
        v = self.encoder(v, Patches(*axial_tables(self.config, x, y, v.dtype), lengths))
        return self._standardized(pool(v)).astype(v.dtype)

    def _standardized(self, t: Float[Array, "T D"]) -> Float[Array, "T D"]:
        if self.std_bias is None or self.std_scale is None:
            return t
        # In float32: the difference is of nearly equal large numbers.
        return (t - self.std_bias[...].astype(jnp.float32)) * self.std_scale[...].astype(jnp.float32)


def pool(v: Float[Array, "P D"]) -> Float[Array, "T D"]:
    """The mean of every nine patches times sqrt(D), in float32."""
    d = v.shape[-1]
    return v.astype(jnp.float32).reshape(-1, CELL, d).mean(axis=1) * d**0.5


def places(grids: Int[Array, "I 2"], patches: int) -> tuple[Int[Array, " P"], Int[Array, " P"]]:
    """Column and row of every patch of images with `grids` rows and columns of soft tokens, `patches` rows to each."""
    patch = jnp.arange(patches)
    token, within = patch // CELL, patch % CELL
    inside = patch < CELL * grids[:, :1] * grids[:, 1:]
    columns = jnp.maximum(grids[:, 1:], 1)
    x = POOLING * (token % columns) + within % POOLING
    y = POOLING * (token // columns) + within // POOLING
    return jnp.where(inside, x, 0).reshape(-1), jnp.where(inside, y, 0).reshape(-1)
