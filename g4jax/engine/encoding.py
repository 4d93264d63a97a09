"""The encoders' steps on the device: images or a sound in, soft tokens into the store. Jitted by `Programs`."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from g4jax.engine.encoder_batch import EncoderShapes, hear_fields, see_fields
from g4jax.engine.packing import unpack
from g4jax.models.multimodal import Encoders

Leaves = tuple[Array, ...]


@dataclasses.dataclass(frozen=True)
class Encoding:
    """`merge`: flat leaves -> the encoders. `hidden_size`, `dtype`: of a soft token."""

    merge: Callable[[Leaves], Encoders]
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
    ) -> Float[Array, "S D"]:
        """Packed images; row S takes what padding makes, which is dropped."""
        fields = unpack(see_fields(tokens, self.shapes), packed)
        rows = fields.pop("rows")
        return _stored(store, rows, self.merge(leaves).see(pixels, **fields))

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


def _stored(store: Float[Array, "S D"], rows: Int[Array, " T"], soft: Float[Array, "T D"]) -> jax.Array:
    return store.at[rows].set(soft.astype(store.dtype), mode="drop")
