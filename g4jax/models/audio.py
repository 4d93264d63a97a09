"""The audio tower (E2B, E4B): a conformer that makes a soft token of 40 ms of sound."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Int

from g4jax.models.audio_layer import ConformerBlock
from g4jax.models.audio_subsample import Subsample
from g4jax.nn.clipped import Linear
from g4jax.nn.param import param
from g4jax.tower_config import AudioConfig


class AudioTower(nnx.Module):
    """Parameters are named as in the checkpoint below `model.audio_tower.`; every device holds all of them."""

    def __init__(self, config: AudioConfig, *, dtype: DTypeLike = jnp.bfloat16):
        self.subsample_conv_projection = Subsample(config, dtype)
        self.layers = nnx.List(ConformerBlock(config, dtype) for _ in range(config.num_layers))
        self.output_proj = OutputProjection(config.output_dims, config.hidden_size, dtype)

    def __call__(self, frames: Float[Array, "F 128"], length: Int[Array, ""]) -> Float[Array, "T O"]:
        """The T = F / 4 tokens of float32 log-mel `frames` (F a multiple of 4), of which `length` are sound.

        The first ceil(ceil(length / 2) / 2) tokens do not depend on the frames beyond; the others mean nothing.
        """
        x = self.subsample_conv_projection(frames, length)
        for layer in self.layers:
            x = layer(x)
        return self.output_proj(x)


class OutputProjection(Linear):
    """x @ weight.T + bias, weight [O, D], bias [O]."""

    def __init__(self, n: int, k: int, dtype: DTypeLike):
        super().__init__(n, k, dtype)
        self.bias = param((n,), (None,), dtype)

    def __call__(self, x: Float[Array, "*B K"]) -> Float[Array, "*B N"]:
        return super().__call__(x) + self.bias[...]
