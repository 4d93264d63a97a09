"""Random weights with a checkpoint's shapes, for speed measurements without a download.

They keep activations near 1 through any number of layers and attention soft, so kernels see ordinary numbers and
rounding is not amplified. Every device makes its own part, in place.
"""

import functools
import re
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, DTypeLike, Float, UInt32

from g4jax.config import Gemma4Config, TextConfig
from g4jax.sharding import TP
from g4jax.weights.abstract import ParamSpec, abstract_encoders, abstract_model

Spread = Callable[[ParamSpec, TextConfig], float]


def _by_fan_in(param: ParamSpec, config: TextConfig) -> float:
    return param.shape[-1] ** -0.5


RULES: tuple[tuple[str, float | Spread, float | Spread], ...] = (
    # pattern of the path, mean, standard deviation; the first that matches counts
    # Of the encoders: bounds that clip little, and an output that stays as it is.
    (r"(input|output)_min$", -100.0, 0.0),
    (r"(input|output)_max$", 100.0, 0.0),
    (r"std_scale|(patch_ln\d|pos_norm)\.weight", 1.0, 0.1),
    (r"std_bias|\.bias$|per_dim_scale", 0.0, 0.1),
    (r"depthwise_conv1d|conv\.weight|pos_embedding|position_embedding_table", 0.0, 0.1),
    (r"post_\w*norm\w*\.weight", 0.3, 0.03),
    # With k's norm near 1, scores have a standard deviation of 2: soft, but not uniform.
    (r"q_norm\.weight", lambda param, config: 2 * param.shape[-1] ** -0.5, 0.0),
    (r"norm\w*\.weight|router\.scale", 1.0, 0.1),
    (r"layer_scalar|per_expert_scale", 1.0, 0.02),
    # The router divides by sqrt(D) itself.
    (r"router\.proj\.weight", 0.0, 1.0),
    (r"embed_tokens_per_layer", 0.0, lambda param, config: config.hidden_size_per_layer_input**-0.5),
    (r"", 0.0, _by_fan_in),
)


def dummy(config: TextConfig, mesh: Mesh, dtype: DTypeLike, seed: int = 0) -> tuple[jax.Array, ...]:
    """The leaves of `abstract_model(config, dtype, tp)`, random, spread over `mesh`; nothing besides them is allocated.

    A parameter depends on `seed`, its path and its shape alone.
    """
    return _filled(abstract_model(config, dtype, mesh.shape[TP]).params, config, mesh, seed)


def dummy_encoders(config: Gemma4Config, mesh: Mesh, dtype: DTypeLike, seed: int = 0) -> tuple[jax.Array, ...]:
    """As `dummy`, of `abstract_encoders(config, dtype)`."""
    encoders = abstract_encoders(config, dtype)
    return () if encoders is None else _filled(encoders.params, config.text, mesh, seed)


def _filled(params: Sequence[ParamSpec], config: TextConfig, mesh: Mesh, seed: int) -> tuple[jax.Array, ...]:
    kinds = list(dict.fromkeys(_kind(param, mesh) for param in params))
    with ThreadPoolExecutor() as pool:  # the time goes into compiling
        programs = dict(zip(kinds, pool.map(lambda kind: _normal(*kind), kinds), strict=True))
    return tuple(programs[_kind(param, mesh)](*_arguments(param, config, seed)) for param in params)


def _kind(param: ParamSpec, mesh: Mesh) -> tuple[tuple[int, ...], np.dtype, NamedSharding]:
    return param.shape, param.dtype, param.sharding(mesh)


def _arguments(param: ParamSpec, config: TextConfig, seed: int) -> tuple[np.uint32, np.float32, np.float32]:
    _, *moments = next(rule for rule in RULES if re.search(rule[0], param.path))
    mean, deviation = (value(param, config) if callable(value) else value for value in moments)
    return np.uint32(zlib.crc32(f"{seed} {param.path}".encode())), np.float32(mean), np.float32(deviation)


@functools.cache
def _normal(shape: tuple[int, ...], dtype: np.dtype, sharding: NamedSharding) -> jax.stages.Compiled:
    """One program per shape: bits, sum and cast are one fusion, so no float32 copy ever exists."""

    def normal(key: UInt32[Array, ""], mean: Float[Array, ""], deviation: Float[Array, ""]) -> Array:
        bits = _hash(_hash(_positions(shape)) ^ key)
        total = sum((bits >> shift) & 0xFF for shift in (0, 8, 16, 24))
        # Four uniform bytes: nearly a bell, with mean 510 and variance 4 (256^2 - 1) / 12.
        standard = (jnp.asarray(total, jnp.float32) - 510) * (4 * (256**2 - 1) / 12) ** -0.5
        return (mean + deviation * standard).astype(dtype)

    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    return jax.jit(normal, out_shardings=sharding).lower(jax.ShapeDtypeStruct((), jnp.uint32), scalar, scalar).compile()


def _positions(shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """Every element's place in the flat array, modulo 2^32."""
    strides = [int(np.prod(shape[axis + 1 :])) % 2**32 for axis in range(len(shape))]
    places = (lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(strides[axis]) for axis in range(len(shape)))
    return functools.reduce(jnp.add, places, jnp.zeros(shape, jnp.uint32))


def _hash(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """A bijection of 32 bits that looks random (https://github.com/skeeto/hash-prospector, "lowbias32")."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
