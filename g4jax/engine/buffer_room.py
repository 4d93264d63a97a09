"""Room of their own for the small buffers of launches, so that large temporaries stay where they are.

XLA's allocator gives a buffer the smallest hole that holds it. Inputs and results outlive their launch a little;
without a hole of their own they take the beginning of the free memory now and then, and the next launch's temporaries
begin elsewhere. A graph whose buffers have moved is brought up to date, node by node, before it runs: milliseconds of
the host.
"""

import math

import jax
import numpy as np
from jax.sharding import Sharding

from g4jax.engine.programs import Programs

LAUNCHES = 8
"""As many launches' inputs fit: two are alive at once, and the allocator needs some play."""
LEAST_BYTES = 2**20


def make_room(programs: Programs, sharding: Sharding) -> jax.Array:
    """Leaves a hole for small buffers in the devices' memory. It lasts as long as what is returned, its wall."""
    size = max(LEAST_BYTES, LAUNCHES * _input_bytes(programs))
    hole, wall = (jax.device_put(np.zeros(size, np.int8), sharding) for _ in range(2))
    jax.block_until_ready((hole, wall))
    hole.delete()
    return wall


def _input_bytes(programs: Programs) -> int:
    """Of a launch in which the largest batch decodes, the tokens of the launches before included."""
    rows = programs.step.shapes.decode_rows[-1]
    (packed, *left), (_, drawing, _) = (programs.inputs(key) for key in (("forward", rows), ("draw", rows, "guided")))
    _, counts = programs.inputs(("count",))
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves((packed, left, drawing, counts)))
