"""The random bits of `jax.random` inside a kernel: threefry-2x32 with 20 rounds (Salmon et al., 2011).

As jax makes them with `jax_threefry_partitionable`, its default: the bits of an element are those of its number.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, UInt32

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY = 0x1BD11BDA

Key = tuple[UInt32[Array, ""], UInt32[Array, ""]]


def fold_in(seed: UInt32[Array, ""], index: UInt32[Array, ""]) -> Key:
    """`jax.random.fold_in(jax.random.key(seed), index)`."""
    zero = jnp.uint32(0)
    return _hash((zero, seed), zero, index)


def bits(key: Key, element: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """`jax.random.bits(key, (n,), jnp.uint32)[element]`, for every n beyond it."""
    first, second = _hash(key, jnp.zeros_like(element), element)
    return first ^ second


def _hash(key: Key, x: UInt32[Array, "*shape"], y: UInt32[Array, "*shape"]):
    keys = (*key, key[0] ^ key[1] ^ jnp.uint32(PARITY))
    x, y = x + keys[0], y + keys[1]
    for turn in range(5):
        for rotation in ROTATIONS[turn % 2]:
            x = x + y
            y = _rotated(y, rotation) ^ x
        x, y = x + keys[(turn + 1) % 3], y + keys[(turn + 2) % 3] + jnp.uint32(turn + 1)
    return x, y


def _rotated(x: UInt32[Array, "*shape"], by: int) -> UInt32[Array, "*shape"]:
    return (x << jnp.uint32(by)) | lax.shift_right_logical(x, jnp.uint32(32 - by))
