"""A parameter and the logical axes of its dimensions."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import DTypeLike


def param(shape: tuple[int, ...], axes: tuple[str | None, ...], dtype: DTypeLike) -> nnx.Param:
    """A zero parameter of `shape`; `axes` names, per dimension, what is split over devices (see `g4jax.sharding`)."""
    return nnx.Param(jnp.zeros(shape, dtype), axes=axes)
