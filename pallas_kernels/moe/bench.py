"""Times the experts of the released models under even routing.

python -m pallas_kernels.moe.bench [--rows 1,4,8,64,512,2048] [--candidates]

The output of a call is the input of the next, which routes to other experts. Prints rows, sizes of the two products
(None: what is chosen), microseconds, GB/s of the active experts' weights, TFLOP/s, percent of the nearer limit; the
last line is all of it as JSON. `--candidates` varies the sizes of one product at a time.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pallas_kernels.moe import experts, triton
from pallas_kernels.moe.gemv import Warps
from pallas_kernels.moe.shapes import SHAPES, Shape
from pallas_kernels.roofline import report
from pallas_kernels.timing import median_seconds

ROUTINGS, LOOPS = 8, 4
OPTIONS: dict[str, str | bool] = {"xla_gpu_fail_ptx_compilation_on_register_spilling": True}
CANDIDATES = [(32, 128), (64, 128), (32, 256), (16, 256), (16, 128), (64, 64), (128, 64), (32, 64)]
"""Weight rows and depth of a tile."""
LAUNCHES = [(4, 4), (4, 3), (8, 3), (4, 5)]
"""Warps and stages."""
REGISTERS = [Warps(1, 1), Warps(2, 1), Warps(2, 2), Warps(4, 2), Warps(4, 4), Warps(8, 8)]
"""Of one row."""


def route_evenly(shape: Shape, rows: int) -> list[jax.Array]:
    """ROUTINGS choices of k distinct experts per row."""
    rng = np.random.default_rng(rows)
    chosen = rng.random((ROUTINGS, rows, shape.num_experts)).argsort(-1)[..., : shape.k]
    return [jnp.asarray(ids, jnp.int32) for ids in chosen]


def compile_chain(pair: triton.Tiles | None, args: tuple[Any, ...]) -> Any:
    """A program that runs the experts, with these sizes or as chosen, under each routing, LOOPS times over."""
    form = experts if pair is None else functools.partial(triton.experts, tiles=pair)

    def chain(u, weights, routings, gate_up, down):
        def body(_, u):
            for ids in routings:
                u = form(u, weights, ids, gate_up, down)
            return u

        return lax.fori_loop(0, LOOPS, body, u)

    return jax.jit(chain).lower(*args).compile(OPTIONS)


def chosen_tiles(shape: Shape, rows: int) -> triton.Tiles:
    """What `triton.experts` chooses."""
    return triton.choose(shape.width, shape.features, shape.num_experts, rows, shape.k, jnp.dtype(jnp.bfloat16))


def candidates(shape: Shape, rows: int) -> list[triton.Tiles]:
    """The chosen sizes, then those that vary one product; only the slotwise second product may have a ragged depth."""
    chosen = chosen_tiles(shape, rows)
    pairs = [chosen]
    for which, (outputs, depth) in enumerate(((shape.features, shape.width), (shape.width, shape.features))):
        if isinstance(tile := chosen[which], Warps):
            others = REGISTERS
        else:
            ragged = which == 1 and rows <= triton.SLOTWISE_ROWS
            fitting = [(r, d) for r, d in CANDIDATES if outputs % r == 0 and (ragged or depth % d == 0)]
            sizes = [(c, launch) for c in fitting for launch in LAUNCHES]
            others = [tile._replace(rows=r, depth=d, warps=warps, stages=stages) for (r, d), (warps, stages) in sizes]
        pairs += [(other, chosen[1]) if which == 0 else (chosen[0], other) for other in others]
    return list(dict.fromkeys(pairs))


def measure(shape: Shape, rows: int, *, every: bool) -> list[dict[str, Any]]:
    """Times the chosen sizes, or all candidates; those that do not compile are left out."""
    routings = route_evenly(shape, rows)
    active = np.mean([len(np.unique(np.asarray(ids))) for ids in routings])
    expert = 3 * shape.width * shape.features
    shapes = [(shape.num_experts, 2 * shape.features, shape.width), (shape.num_experts, shape.width, shape.features)]
    make = jax.jit(lambda key, s: jax.random.normal(key, s, jnp.bfloat16) / math.sqrt(s[-1]), static_argnums=1)
    gate_up, down = (make(jax.random.key(i), s) for i, s in enumerate(shapes))
    u = jax.random.normal(jax.random.key(2), (rows, shape.width), jnp.bfloat16)
    args = (u, jnp.full((rows, shape.k), 1 / shape.k, jnp.float32), routings, gate_up, down)
    pairs = candidates(shape, rows) if every else [None]
    with ThreadPoolExecutor(min(12, os.cpu_count() or 1)) as pool:
        programs = [(pair, pool.submit(compile_chain, pair, args)) for pair in pairs]
    results = []
    for pair, program in programs:
        if error := program.exception():
            print(rows, *map(tuple, pair or ()), "left out:", str(error).splitlines()[0][:100], flush=True)
            continue
        seconds = median_seconds(functools.partial(program.result(), *args)) / ROUTINGS / LOOPS
        results.append({"rows": rows, "gate_up": pair and list(pair[0]), "down": pair and list(pair[1])})
        results[-1] |= report(seconds, num_bytes=2.0 * float(active) * expert, flops=2.0 * rows * shape.k * expert)
        print(*results[-1].values(), flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1,4,8,64,512,2048")
    parser.add_argument("--candidates", action="store_true")
    options = parser.parse_args()
    results = []
    for rows in map(int, options.rows.split(",")):
        results += measure(SHAPES["26B-A4B"], rows, every=options.candidates)
    print(json.dumps({"device": jax.devices()[0].device_kind, "moe": results}))


if __name__ == "__main__":
    main()
