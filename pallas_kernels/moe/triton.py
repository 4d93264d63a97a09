"""Mixture of experts as Pallas kernels (Triton): which form runs, and with which sizes.

Up to `SLOTWISE_ROWS` rows: two launches, every slot reads its expert, of one row into registers. More rows: sort the
slots by expert, two grouped products that read every active expert once, and the weighted sum, four launches.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pallas_kernels.core import Unsupported, launcher
from pallas_kernels.linear.tiles import fit
from pallas_kernels.moe import gemv, products
from pallas_kernels.moe.combine import combine
from pallas_kernels.moe.gemv import Warps
from pallas_kernels.moe.groups import group
from pallas_kernels.moe.products import Blocks
from pallas_kernels.moe.router import route

__all__ = ["experts", "route"]

Tiles = tuple[Blocks | Warps, Blocks | Warps]
"""Sizes of the two products; `Warps` for the register form of a few rows."""

SLOTWISE_ROWS = 4
"""With top 8 of 128, four rows rarely share an expert: sorting would cost more than reading one twice."""
REGISTER_ROWS = 1
"""So many rows are too few programs to fill the stages of a tiled product: there the register form is faster."""
LARGE_GROUP = 128
"""Slots of an expert that fill `down`'s tiles of twice as many."""


@launcher("interpret", "tiles")
def experts(
    u: Float[Array, "R D"],
    weights: Float[Array, "R k"],
    ids: Int[Array, "R k"],
    gate_up: Float[Array, "E G D"],
    down: Float[Array, "E D F"],
    *,
    interpret: bool = False,
    tiles: Tiles | None = None,
) -> Float[Array, "R D"]:
    """See `api.experts`. `tiles`: other sizes than the chosen ones."""
    num_experts, width, features = down.shape
    num_rows, k = ids.shape
    tiles = tiles or choose(width, features, num_experts, num_rows, k, u.dtype)
    if num_rows <= SLOTWISE_ROWS:
        return _slotwise(u, weights, ids, gate_up, down, tiles, interpret)
    return _grouped(u, weights, ids, gate_up, down, tiles, interpret)


def _slotwise(u, weights, ids, gate_up, down, tiles: Tiles, interpret: bool) -> Float[Array, "R D"]:
    first, second = tiles
    if isinstance(first, Warps):
        h = gemv.gate_up(u, ids, gate_up, first, interpret=interpret)
    else:
        h = products.gate_up(u, ids.reshape(-1), None, gate_up, first, interpret=interpret)
    if isinstance(second, Warps):
        return gemv.down_combine(h, weights, ids, down, second, interpret=interpret)
    return products.down_combine(h, weights, ids, down, second, interpret=interpret)


def _grouped(u, weights, ids, gate_up, down, tiles: Any, interpret: bool) -> Float[Array, "R D"]:
    first, second = tiles
    flat = ids.reshape(-1)
    groups = group(flat, len(down), interpret=interpret)
    h = products.gate_up(u, flat, groups, gate_up, first, interpret=interpret)
    results = products.down(h, groups, down, second, interpret=interpret)
    return combine(results, weights, ids, len(down), interpret=interpret)


def choose(width: int, features: int, num_experts: int, num_rows: int, k: int, dtype: jnp.dtype) -> Tiles:
    """The sizes that were fastest on an H200 among those tried (docs/experiments.md)."""
    if num_rows <= REGISTER_ROWS:
        try:
            return gemv.choose(width, features, k, dtype)
        except Unsupported:
            pass
    if num_rows <= SLOTWISE_ROWS:
        return slotwise_blocks(width, features, k, dtype)
    return grouped_blocks(width, features, num_rows * k / num_experts, dtype)


def slotwise_blocks(width: int, features: int, k: int, dtype: jnp.dtype) -> tuple[Blocks, Blocks]:
    """Sizes of `gate_up` and `down_combine` for a few rows: enough programs to fill the device."""
    depth = 32 if dtype == jnp.float32 else 128
    first = Blocks(_tile(features, 32 if dtype == jnp.float32 else 64), _tile(width, depth))
    return first, Blocks(_tile(width, 16), 2 * depth, tokens=max(16, 1 << (k - 1).bit_length()), warps=1, stages=3)


def grouped_blocks(width: int, features: int, per_expert: float, dtype: jnp.dtype) -> tuple[Blocks, Blocks]:
    """Sizes of `gate_up` and `down` for `per_expert` slots an expert on average.

    Few: small tiles of tokens, the weights are what is read. Many: large tiles, shared out over several programs.
    """
    if dtype == jnp.float32:
        return Blocks(_tile(features, 32), _tile(width, 32)), Blocks(_tile(width, 32), _tile(features, 32))
    if per_expert <= 8:
        return Blocks(_tile(features, 32), _tile(width, 128)), Blocks(_tile(width, 64), _tile(features, 64))
    chunks = min(1 << max(0, round(per_expert / 32 - 1).bit_length()), 16)
    first = Blocks(_tile(features, 64), _tile(width, 64), tokens=64, chunks=chunks, stages=3)
    if per_expert < LARGE_GROUP:
        return first, Blocks(_tile(width, 128), _tile(features, 64), tokens=64, chunks=chunks)
    large = Blocks(_tile(width, 256), _tile(features, 64), tokens=128, chunks=chunks // 2, warps=8, stages=3)
    return first, large


def _tile(size: int, most: int) -> int:
    """The largest power of two up to `most` that divides `size`: the kernels have no ragged edges."""
    tile = fit(size, most)
    if tile < 16:
        raise Unsupported(f"{size} is no multiple of 16.")
    return tile
