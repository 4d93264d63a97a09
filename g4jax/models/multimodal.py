"""The eyes and ears of a model: from patches and sound to the embeddings that stand in the place of tokens."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Int, UInt8

from g4jax.config import Gemma4Config
from g4jax.models.audio import AudioTower
from g4jax.models.unified import VisionEmbedder
from g4jax.models.vision import CELL, VisionTower, places
from g4jax.nn.clipped import Linear
from g4jax.tower_config import AudioConfig, VisionConfig
from pallas_kernels.core import Implementation
from pallas_kernels.norm import rms_norm

FRAMES_PER_TOKEN = 4
"""Log-mel frames of 10 ms that an audio tower turns into one soft token."""


class MultimodalEmbedder(nnx.Module):
    """soft = rms(t) W^T, without a weight in the norm and without the text embedding's factor; W [D, O]."""

    def __init__(self, width: int, hidden: int, eps: float, dtype: DTypeLike):
        self.embedding_projection = Linear(hidden, width, dtype)
        self.eps, self.dtype = eps, dtype

    def __call__(self, t: Float[Array, "T O"]) -> Float[Array, "T D"]:
        return self.embedding_projection(rms_norm(t.astype(self.dtype), None, eps=self.eps))


class Encoders(nnx.Module):
    """What `config` has of them. Every device holds all of their parameters."""

    def __init__(
        self,
        config: Gemma4Config,
        *,
        dtype: DTypeLike = jnp.bfloat16,
        implementation: Implementation | None = None,
    ):
        hidden, vision, audio = config.text.hidden_size, config.vision, config.audio
        if isinstance(vision, VisionConfig):
            self.vision_tower = VisionTower(vision, dtype=dtype, implementation=implementation)
        elif vision is not None:
            self.vision_embedder = VisionEmbedder(vision, dtype=dtype)
        if vision is not None:
            self.embed_vision = MultimodalEmbedder(vision.output_dims, hidden, vision.rms_norm_eps, dtype)
        if isinstance(audio, AudioConfig):
            self.audio_tower = AudioTower(audio, dtype=dtype)
        if audio is not None:
            self.embed_audio = MultimodalEmbedder(audio.output_dims, hidden, audio.rms_norm_eps, dtype)
        self.has_vision_tower = isinstance(vision, VisionConfig)
        self.has_audio_tower = isinstance(audio, AudioConfig)

    def see(self, pixels: UInt8[Array, "P 768"], grids: Int[Array, "I 2"]) -> Float[Array, "T D"]:
        """The soft tokens of I images, T = P / 9. Each has P / I rows; those it does not need are padding.

        Args:
          pixels: patches of 16 x 16 pixels (row, column, RGB), nine by nine: those of one soft token stand together.
          grids: rows and columns of soft tokens of each image.
        """
        x, y = places(grids, len(pixels) // len(grids))
        if self.has_vision_tower:
            return self.embed_vision(self.vision_tower(pixels, x, y, CELL * grids[:, 0] * grids[:, 1]))
        return self.embed_vision(self.vision_embedder(pixels, x, y))

    def hear(self, frames: Float[Array, "F C"], length: Int[Array, ""]) -> Float[Array, "T D"]:
        """The soft tokens of one sound with `length` valid frames; see `AudioTower`."""
        return self.embed_audio(self.audio_tower(frames, length) if self.has_audio_tower else frames)
