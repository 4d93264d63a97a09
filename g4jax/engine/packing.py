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


def packed_size(fields: Fields) -> int:
    return sum(math.prod(field.shape) for field in fields)


def empty(fields: Fields) -> dict[str, np.ndarray]:
    """Zeroed host arrays of the fields' shapes."""
    return {field.name: np.zeros(field.shape, field.dtype) for field in fields}


def pack(fields: Fields, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The fields' bits one after the other, int32."""
    return np.concatenate([arrays[field.name].view(np.int32).ravel() for field in fields])


def unpack(fields: Fields, packed: Int[Array, " P"]) -> dict[str, jax.Array]:
    """The inverse of `pack`, inside a jitted step."""
    arrays, at = {}, 0
    for field in fields:
        size = math.prod(field.shape)
        bits = packed[at : at + size].reshape(field.shape)
        arrays[field.name] = bits if field.dtype == np.int32 else lax.bitcast_convert_type(bits, field.dtype)
        at += size
    return arrays
