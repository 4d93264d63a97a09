"""The key/value cache on the device: one pair of page arrays per layer that owns keys.

Two pools of pages, since sliding and full layers differ in head size and in how long a token is needed. All layers of
one kind share their pool's page numbers. Page 0 of each pool is nobody's: padding writes there.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from g4jax.config import LayerSpec, TextConfig
from g4jax.sharding import local_kv_heads

KV_AXES = (None, "heads", None, None)


class LayerPages(NamedTuple):
    """k, v: `[P, K, Z, H]`, P pages of Z tokens."""

    k: Float[Array, "P K Z H"]
    v: Float[Array, "P K Z H"]


def page_shape(spec: LayerSpec, pages: int, page_size: int, tp: int) -> tuple[int, int, int, int]:
    """Shape of a layer's k (and v) over all devices; heads that are copied count once per device."""
    return (pages, tp * local_kv_heads(spec.num_kv_heads, tp), page_size, spec.head_dim)


def page_bytes(config: TextConfig, *, sliding: bool, page_size: int, itemsize: int, tp: int) -> int:
    """Bytes per device that one page of a pool takes in all of its layers."""
    return sum(
        2 * spec.head_dim * page_size * local_kv_heads(spec.num_kv_heads, tp) * itemsize
        for spec in config.layers
        if spec.owns_kv and spec.is_sliding == sliding
    )


def allocate(
    config: TextConfig,
    *,
    sliding_pages: int,
    full_pages: int,
    page_size: int,
    dtype: DTypeLike,
    tp: int,
    sharding: jax.sharding.Sharding | None = None,
) -> dict[int, LayerPages]:
    """Zeroed pages for every layer that owns keys, by layer index; `*_pages` count page 0 too."""

    def zeros(spec: LayerSpec) -> Array:
        shape = page_shape(spec, sliding_pages if spec.is_sliding else full_pages, page_size, tp)
        return jnp.zeros(shape, dtype, device=sharding)

    return {spec.index: LayerPages(zeros(spec), zeros(spec)) for spec in config.layers if spec.owns_kv}
