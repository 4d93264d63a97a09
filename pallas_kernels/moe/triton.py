"""Mixture of experts as Pallas kernels (Triton): which form runs, and with which sizes.

Up to `SLOTWISE_ROWS` rows: two launches, every slot reads its expert. More rows: sort the slots by expert, two grouped
products that read every active expert once, and the weighted sum, four launches.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pallas_kernels.core import Unsupported, launcher
from pallas_kernels.moe.groups import group
from pallas_kernels.moe.products import Blocks, down, down_combine, gate_up
from pallas_kernels.moe.router import route

__all__ = ["experts", "route"]

SLOTWISE_ROWS = 4
"""With top 8 of 128, four rows rarely share an expert: sorting would cost more than reading one twice."""


@launcher("interpret", "blocks")
def experts(
    u: Float[Array, "R D"],
    weights: Float[Array, "R k"],
    ids: Int[Array, "R k"],
    gate_up_weight: Float[Array, "E G D"],
    down_weight: Float[Array, "E D F"],
    *,
    interpret: bool = False,
    blocks: tuple[Blocks, Blocks] | None = None,
) -> Float[Array, "R D"]:
    """See `api.experts`. `blocks`: other sizes of the two products than the chosen ones."""
    num_experts, width, features = down_weight.shape
    num_rows, k = ids.shape
    flat = ids.reshape(-1)
    if num_rows <= SLOTWISE_ROWS:
        first, second = blocks or slotwise_blocks(width, features, k, u.dtype)
        h = gate_up(u, flat, None, gate_up_weight, first, interpret=interpret)
        return down_combine(h, weights, ids, down_weight, second, interpret=interpret)
    first, second = blocks or grouped_blocks(width, features, num_rows * k / num_experts, u.dtype)
    groups = group(flat, num_experts, interpret=interpret)
    h = gate_up(u, flat, groups, gate_up_weight, first, interpret=interpret)
    out = down(h, groups, down_weight, second, interpret=interpret).reshape(num_rows, k, width)
    here = ((ids >= 0) & (ids < num_experts))[..., None]
    weighted = jnp.where(here, out.astype(jnp.float32), 0) * weights.astype(jnp.float32)[..., None]
    return jnp.sum(weighted, axis=1).astype(u.dtype)


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
    chunks = 1 << max(0, round(per_expert / 32 - 1).bit_length())
    sizes = {"tokens": 64, "chunks": min(chunks, 16)}
    return (
        Blocks(_tile(features, 64), _tile(width, 64), stages=3, **sizes),
        Blocks(_tile(width, 128), _tile(features, 64), **sizes),
    )


def _tile(size: int, most: int) -> int:
    """The largest power of two up to `most` that divides `size`: the kernels have no ragged edges."""
    tile = min(most, size & -size)
    if tile < 16:
        raise Unsupported(f"{size} is no multiple of 16.")
    return tile
