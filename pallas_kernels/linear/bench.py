"""Times the products of the released models: the chosen tile and, if asked, every candidate tile.

python -m pallas_kernels.linear.bench [--models E2B,31B] [--rows 1,8,64] [--names gate_up,down] [--candidates]

Each call takes another weight, so that the caches do not serve it, and depends on the one before. Prints model, shape,
rows, form, microseconds, GB/s of weights, percent of the device's bandwidth; the last line is all of it as JSON.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import json
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from pallas_kernels.linear import Columns, triton
from pallas_kernels.linear.shapes import SHAPES, Shape
from pallas_kernels.linear.tiles import DOT_CANDIDATES, GEMV_CANDIDATES, Tile, fit
from pallas_kernels.norm.api import Residual, add_rms_norm
from pallas_kernels.timing import median_seconds, percent_of_peak

BYTES_PER_TURN = 2**30
"""Weights read before one is read again, many times the size of the caches."""
LOOPS = 5
EPS = 1e-6
MAX_GEMV_DEPTH = 4096
"""A deeper stream does not fit the registers of the one-row form."""
OPTIONS: dict[str, str | bool] = {"xla_gpu_fail_ptx_compilation_on_register_spilling": True}

Step = Callable[[Array, Array, Array], tuple[Array, Array]]
"""(x, weight, last result) -> (next x, result)."""


class Form(NamedTuple):
    """A way to compute a product."""

    name: str
    tile: Tile | None = None
    fused: bool = True
    """The stream's norm runs inside the product, where the rows are few enough for that; else it is its own launch."""


def step(shape: Shape, rows: int, form: Form) -> Step:
    """One product whose operand or order hangs on the last result."""
    times = Columns(jnp.ones((rows, shape.n), jnp.bfloat16), 0) if shape.activation == "times" else None
    weight, scale = jnp.ones((shape.k,), jnp.bfloat16), jnp.full((1,), 0.5, jnp.bfloat16)

    def normed(x, w, last):
        residual, then = Residual(x, x, weight, scale), weight if shape.then else None
        if form.fused and rows <= triton.MAX_NORM_ROWS:
            return triton.norm_linear(residual, then, w, shape.activation, times, eps=EPS, tile=form.tile)
        x, h = add_rms_norm(residual, (weight,) * shape.then, eps=EPS, implementation="triton")
        return plain(x, w, last, h[0] if h else x)

    def plain(x, w, last, h=None):
        return x, triton.project(x if h is None else h, w, shape.activation, times, tile=form.tile, after=last)

    return jax.jit(normed if shape.normed else plain)


def compile_chain(shape: Shape, rows: int, count: int, form: Form) -> Any:
    """A program that runs the product with each of `count` weights, LOOPS times over."""
    one = step(shape, rows, form)

    def chain(x, last, weights):
        def body(_, carry):
            for w in weights:
                carry = one(carry[0], w, carry[1])
            return carry

        return lax.fori_loop(0, LOOPS, body, (x, last))

    x, last = (jax.ShapeDtypeStruct((rows, n), jnp.bfloat16) for n in (shape.k, shape.n))
    weights = [jax.ShapeDtypeStruct(shape.weight, jnp.bfloat16)] * count
    return jax.jit(chain).lower(x, last, weights).compile(OPTIONS)


def forms(shape: Shape, rows: int, *, every: bool) -> list[Form]:
    """What is used, and if `every` all the candidates."""
    chosen = [Form("chosen")]
    if not every:
        return chosen
    tiles: list[Tile] = list(dict.fromkeys(t._replace(depth=fit(shape.k, t.depth)) for t in DOT_CANDIDATES))
    if rows == 1 and not (shape.normed and shape.k > MAX_GEMV_DEPTH):
        tiles += GEMV_CANDIDATES
    found = chosen + [Form(str(tile), tile=tile) for tile in tiles]
    if shape.normed and rows <= triton.MAX_NORM_ROWS:
        found += [Form(f"norm, then {tile}", tile=tile, fused=False) for tile in tiles]
    return found


def measure(shape: Shape, rows: int, *, every: bool, pool: concurrent.futures.Executor) -> list[dict[str, Any]]:
    """Times every form of a product; those that do not compile are left out."""
    size = 2 * math.prod(shape.weight)
    count = min(128, max(4, -(-BYTES_PER_TURN // size)))
    compiling = [
        (form.name, pool.submit(compile_chain, shape, rows, count, form)) for form in forms(shape, rows, every=every)
    ]
    make = jax.jit(lambda key: 0.02 * jax.random.normal(key, shape.weight, jnp.bfloat16))
    weights = [make(key) for key in jax.random.split(jax.random.key(0), count)]
    x, last = (jax.random.normal(jax.random.key(1), (rows, n), jnp.bfloat16) for n in (shape.k, shape.n))
    results = []
    programs = [(name, future, future.exception()) for name, future in compiling]  # compile first: timing is alone
    for name, future, error in programs:
        if error is not None:
            print(shape.model, shape.name, rows, name, "left out:", str(error).splitlines()[0][:100], flush=True)
            continue
        seconds = median_seconds(functools.partial(future.result(), x, last, weights)) / LOOPS / count
        gbs = size / seconds / 1e9
        results.append(
            {"model": shape.model, "shape": shape.name, "rows": rows, "form": name, "us": round(seconds * 1e6, 2)}
            | {"gbs": round(gbs), "percent": percent_of_peak(gbs)}
        )
        print(*results[-1].values(), flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="E2B,E4B,26B-A4B,31B")
    parser.add_argument("--names", default="", help="beginnings of shape names, all if empty")
    parser.add_argument("--rows", default="1,8,64")
    parser.add_argument("--candidates", action="store_true")
    options = parser.parse_args()
    names = tuple(options.names.split(","))
    shapes = [s for s in SHAPES if s.model in options.models.split(",") and s.name.startswith(names)]
    results = []
    with concurrent.futures.ThreadPoolExecutor(min(12, os.cpu_count() or 1)) as pool:
        for shape in shapes:
            for rows in map(int, options.rows.split(",")):
                results += measure(shape, rows, every=options.candidates, pool=pool)
    print(json.dumps({"device": jax.devices()[0].device_kind, "linear": results}))


if __name__ == "__main__":
    main()
