"""Room of their own for the small buffers of launches, so that large temporaries stay where they are.

XLA's allocator gives a buffer the smallest hole that holds it. Inputs and results outlive their launch a little;
without holes of their own they take the beginning of the free memory now and then, and the next launch's temporaries
begin elsewhere. A graph whose buffers have moved is brought up to date, node by node, before it runs: milliseconds of
the host. A hole that is shared does not help: temporaries that fit into it begin behind whatever lies there. So holes
come in several sizes, each a few times; a buffer finds an empty one of its size.
"""

import math

import jax
import numpy as np
from jax.sharding import Sharding

from g4jax.engine.programs import Programs

EACH = 4
"""Holes of a size: two launches have their inputs at once, and the allocator needs some play."""
SMALLEST_BYTES = 2**14
STEP = 4
"""From one size to the next."""


def make_room(programs: Programs, sharding: Sharding) -> list[jax.Array]:
    """Leaves holes for small buffers in the devices' memory. They last as long as what is returned, their walls."""
    holes, walls = [], []
    for size in hole_sizes(_largest_input(programs)):
        for _ in range(EACH):
            # As large as its hole: a small wall would find a gap elsewhere and part nothing.
            holes.append(jax.device_put(np.zeros(size, np.int8), sharding))
            walls.append(jax.device_put(np.zeros(size, np.int8), sharding))
    jax.block_until_ready((holes, walls))
    for hole in holes:
        hole.delete()
    return walls


def hole_sizes(largest: int) -> list[int]:
    """Bytes, the smallest first; the last hold the largest input."""
    sizes = [SMALLEST_BYTES]
    while sizes[-1] < largest:
        sizes.append(STEP * sizes[-1])
    return [*sizes[:-1], max(largest, SMALLEST_BYTES)]


def _largest_input(programs: Programs) -> int:
    """Bytes of the largest array that the host sends to a launch in which many decode."""
    rows = programs.step.shapes.decode_rows[-1]
    (packed, *_), (_, drawing, _) = (programs.inputs(key) for key in (("forward", rows), ("draw", rows, "guided")))
    _, counts = programs.inputs(("count",))
    return max(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves((packed, drawing, counts)))
