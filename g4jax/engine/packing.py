"""A step's small inputs as one int32 array: one transfer to the device instead of twenty."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Int


class Field(NamedTuple):
    """A named array of the packed one. `dtype` has four bytes."""

    name: str
    shape: tuple[int, ...]
    dtype: type = np.int32


Fields = tuple[Field, ...]


ALIGNED = 64
"""Elements: every field begins at a multiple of 256 bytes, so that a kernel may read it where it lies."""


def packed_size(fields: Fields) -> int:
    return sum(map(_room, fields))


def _room(field: Field) -> int:
    """Elements of a field and of the gap behind it."""
    return -(-math.prod(field.shape) // ALIGNED) * ALIGNED


def empty(fields: Fields) -> dict[str, np.ndarray]:
    """Zeroed host arrays of the fields' shapes."""
    return {field.name: np.zeros(field.shape, field.dtype) for field in fields}


def pack(fields: Fields, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The fields' bits one after the other, int32; zeros between them. One field alone, as masks are, is not copied."""
    bits = [arrays[field.name].view(np.int32).ravel() for field in fields]
    if len(fields) == 1 and bits[0].size == packed_size(fields):
        return bits[0]
    packed, at = np.zeros(packed_size(fields), np.int32), 0
    for field, own in zip(fields, bits, strict=True):
        packed[at : at + own.size] = own
        at += _room(field)
    return packed


def unpack(fields: Fields, packed: Int[Array, " P"]) -> dict[str, jax.Array]:
    """The inverse of `pack`, inside a jitted step."""
    arrays, at = {}, 0
    for field in fields:
        bits = packed[at : at + math.prod(field.shape)].reshape(field.shape)
        arrays[field.name] = bits if field.dtype == np.int32 else lax.bitcast_convert_type(bits, field.dtype)
        at += _room(field)
    return arrays
