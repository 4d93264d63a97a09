"""The encoders' steps on the device: images or a sound in, soft tokens into the store. Jitted by `Programs`."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from g4jax.config import Gemma4Config
from g4jax.engine.encoder_batch import EncoderShapes, hear_fields, see_fields
from g4jax.engine.packing import unpack
from g4jax.models.multimodal import FRAMES_PER_TOKEN, Encoders
from g4jax.models.vision import CELL
from g4jax.tower_config import MEL_BINS, PATCH, AudioConfig

Leaves = tuple[Array, ...]
Merge = Callable[[Leaves], Encoders]


@dataclasses.dataclass(frozen=True)
class Encoding:
    """`merge`: flat leaves -> the encoders. `hidden_size`, `dtype`: of a soft token."""

    merge: Merge
    shapes: EncoderShapes
    hidden_size: int
    dtype: jnp.dtype

    def see(
        self,
        leaves: Leaves,
        store: Float[Array, "S D"],
        pixels: UInt8[Array, "P C"],
        packed: Int[Array, " I"],
        *,
        tokens: int,
        slots: int,
    ) -> Float[Array, "S D"]:
        """Images, one in a slot of `tokens`; row S takes what padding makes, which is dropped."""
        fields = unpack(see_fields(tokens, slots), packed)
        return _stored(store, fields["rows"], self.merge(leaves).see(pixels, fields["grids"]))

    def hear(
        self,
        leaves: Leaves,
        store: Float[Array, "S D"],
        frames: Float[Array, "F C"],
        packed: Int[Array, " I"],
        *,
        tokens: int,
    ) -> Float[Array, "S D"]:
        """One sound."""
        fields = unpack(hear_fields(tokens), packed)
        return _stored(store, fields["rows"], self.merge(leaves).hear(frames, fields["length"]))


def encoding_of(config: Gemma4Config, merge: Merge, slots: int, dtype: jnp.dtype) -> Encoding:
    """The encoders' steps of a model, with a store of `slots` soft tokens."""
    vision, audio = config.vision, config.audio
    has_audio_tower = isinstance(audio, AudioConfig)
    shapes = EncoderShapes(
        slots=slots,
        patches_per_token=0 if vision is None else CELL,
        patch_size=0 if vision is None else 3 * PATCH**2,
        frames_per_token=0 if audio is None else FRAMES_PER_TOKEN if has_audio_tower else 1,
        frame_size=0 if audio is None else MEL_BINS if has_audio_tower else audio.output_dims,
    )
    return Encoding(merge, shapes, config.text.hidden_size, dtype)


def _stored(store: Float[Array, "S D"], rows: Int[Array, " T"], soft: Float[Array, "T D"]) -> jax.Array:
    return store.at[rows].set(soft.astype(store.dtype), mode="drop")
