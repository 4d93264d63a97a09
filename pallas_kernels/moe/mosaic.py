"""The experts of many rows on Hopper: both products read rows that lie sorted by expert, by bulk copies.

Five launches: the places of the slots, their rows copied there, the two products, the weighted sum.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pallas_kernels.core import Unsupported, launcher
from pallas_kernels.moe.combine import combine
from pallas_kernels.moe.mosaic_product import CLUSTER, DEPTH, Tile, grouped
from pallas_kernels.moe.places import place
from pallas_kernels.moe.spread import spread

MIN_PER_EXPERT = 64
"""Slots of an expert on average: fewer leave most of a warpgroup's rows empty."""
COLUMNS = (88, 72)
"""Two such halves are one product of the tensor cores, which takes 256 columns at most, and four stages fit. Rows of so
many meet no conflicts of banks on their way out."""
STAGES = 4


def experts(
    u: Float[Array, "R D"],
    weights: Float[Array, "R k"],
    ids: Int[Array, "R k"],
    gate_up: Float[Array, "E G D"],
    down: Float[Array, "E D F"],
) -> Float[Array, "R D"]:
    """See `api.experts`; raises Unsupported for what is better left to the Triton kernels."""
    num_experts, width, features = down.shape
    if not u.dtype == gate_up.dtype == down.dtype == jnp.bfloat16:
        raise Unsupported(f"{u.dtype} times {gate_up.dtype} and {down.dtype}")
    if ids.size < MIN_PER_EXPERT * num_experts:
        raise Unsupported(f"{ids.size} slots of {num_experts} experts")
    return launch(u, weights, ids, gate_up, down, tiles=choose(width, features))


class Tiles(NamedTuple):
    """Of the two products."""

    gate_up: Tile
    down: Tile


def choose(width: int, features: int) -> Tiles:
    """The widest tiles that leave nothing over."""
    if width % DEPTH or features % DEPTH:
        raise Unsupported(f"experts of {features} features in a stream of {width}")
    return Tiles(Tile(_columns(features), STAGES), Tile(_columns(width // 2), STAGES))


def _columns(size: int) -> int:
    for columns in COLUMNS:
        if size % (columns * CLUSTER) == 0:
            return columns
    raise Unsupported(f"no tile divides {size}")


@launcher("tiles", "interpret")
def launch(
    u: Float[Array, "R D"],
    weights: Float[Array, "R k"],
    ids: Int[Array, "R k"],
    gate_up: Float[Array, "E G D"],
    down: Float[Array, "E D F"],
    *,
    tiles: Tiles,
    interpret: bool = False,
) -> Float[Array, "R D"]:
    num_experts = down.shape[0]
    places = place(ids.reshape(-1), num_experts, interpret=interpret)
    rows, plan = spread(u, ids, places, interpret=interpret)
    h = grouped(rows, gate_up, plan, tile=tiles.gate_up, gated=True, interpret=interpret)
    results = grouped(h, down, plan, tile=tiles.down, gated=False, interpret=interpret)
    return combine(results, weights, ids, num_experts, places.row, interpret=interpret)
