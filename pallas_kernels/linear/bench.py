"""Times the products of the released models: what is used and, if asked, every candidate and XLA's own product.

python -m pallas_kernels.linear.bench [--models E2B,31B] [--rows 1,8,64] [--names gate_up,down] [--candidates]

A product comes with the norm it stands beside in a layer: the one before it, or, where its operand is not the stream,
the one that reads its result and sums its splits. Each call takes another weight, so that the caches do not serve it,
and waits for the one before. Prints model, shape, rows, form, microseconds, GB/s of weights, percent of the device's
bandwidth; the last line is all of it as JSON.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import json
import math
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from pallas_kernels.linear import Columns, linear, norm_linear, reference, split_linear, triton
from pallas_kernels.linear.candidates import Form, forms
from pallas_kernels.linear.shapes import SHAPES, Shape
from pallas_kernels.norm.api import Residual, add_rms_norm
from pallas_kernels.timing import median_seconds, percent_of_peak

BYTES_PER_TURN = 2**30
"""Weights read before one is read again, many times the size of the caches."""
LOOPS = 5
EPS = 1e-6
OPTIONS: dict[str, str | bool] = {
    "xla_gpu_fail_ptx_compilation_on_register_spilling": True,
    "xla_gpu_command_buffer_scheduling_mode": "SERIALIZE",  # one product at a time, as in a step
}

Step = Callable[[Array, Array, Array], tuple[Array, Array]]
"""(operand, last result, weight) -> the next of both."""


def stream_step(shape: Shape, rows: int, form: Form) -> Step:
    """A product of the stream: the norm before it, and the product."""
    times = Columns(jnp.ones((rows, shape.n), jnp.bfloat16), 0) if shape.activation == "times" else None
    weight = jnp.ones((shape.k,), jnp.bfloat16)

    def step(x, last, w):
        # The layer's scalar is the first element of the last result: this makes the chain wait, and costs nothing.
        residual, then = Residual(x, x, weight, last.reshape(-1)), weight if shape.then else None
        if form.name == "chosen":
            options = {"activation": shape.activation, "times": times, "split": shape.summed, "eps": EPS}
            return norm_linear(residual, then, w, implementation="triton", **options)
        if form.fused:
            return triton.norm_linear(residual, then, w, shape.activation, times, eps=EPS, tile=form.tile)
        x, h = add_rms_norm(residual, (weight,) * shape.then, eps=EPS, implementation="triton")
        if form.tile is None:
            return x, reference.project(h[0] if h else x, w, shape.activation, times)
        return x, triton.project(h[0] if h else x, w, shape.activation, times, tile=form.tile)

    return step


def result_step(shape: Shape, form: Form) -> Step:
    """A product whose result goes to the stream: the product, and the norm after it."""
    weight, scale = jnp.ones((shape.n,), jnp.bfloat16), jnp.full((1,), 0.5, jnp.bfloat16)
    chosen = split_linear if shape.summed else linear

    def step(x, stream, w):
        x, stream = lax.optimization_barrier((x, stream))  # else XLA would multiply x with several weights at once
        if form.name == "chosen":
            y = chosen(x, w, implementation="triton")
        elif form.tile is None:
            y = reference.linear(x, w)
        else:
            y = triton.project(x, w, None, None, tile=form.tile)
        residual = Residual(stream, y, weight, scale)
        stream, _ = add_rms_norm(residual, (weight,), eps=EPS, implementation="triton")
        return x, stream

    return step


def compile_chain(shape: Shape, rows: int, count: int, form: Form) -> Any:
    """A program that runs the product with each of `count` weights, LOOPS times over."""
    one = jax.jit(stream_step(shape, rows, form) if shape.normed else result_step(shape, form))

    def chain(x, last, weights):
        def body(_, carry):
            for w in weights:
                carry = one(*carry, w)
            return carry

        return lax.fori_loop(0, LOOPS, body, (x, last))

    x, last = (jax.ShapeDtypeStruct((rows, n), jnp.bfloat16) for n in (shape.k, shape.n))
    weights = [jax.ShapeDtypeStruct(shape.weight, jnp.bfloat16)] * count
    _, last = jax.eval_shape(one, x, last, weights[0])  # a result may be splits
    return jax.jit(chain).lower(x, last, weights).compile(OPTIONS)


def measure(shape: Shape, rows: int, *, every: bool, pool: concurrent.futures.Executor) -> list[dict[str, Any]]:
    """Times every form of a product; those that do not compile are left out."""
    size = 2 * math.prod(shape.weight)
    count = min(128, max(4, -(-BYTES_PER_TURN // size)))
    compiling = [
        (form.name, pool.submit(compile_chain, shape, rows, count, form)) for form in forms(shape, rows, every=every)
    ]
    make = jax.jit(lambda key: 0.02 * jax.random.normal(key, shape.weight, jnp.bfloat16))
    weights = [make(key) for key in jax.random.split(jax.random.key(0), count)]
    x = jax.random.normal(jax.random.key(1), (rows, shape.k), jnp.bfloat16)
    results = []
    programs = [(name, future, future.exception()) for name, future in compiling]  # compile first: timing is alone
    for name, future, error in programs:
        if error is not None:
            print(shape.model, shape.name, rows, name, "left out:", str(error).splitlines()[0][:100], flush=True)
            continue
        program = future.result()
        last = jnp.ones(program.in_avals[0][1].shape, program.in_avals[0][1].dtype)
        seconds = median_seconds(functools.partial(program, x, last, weights)) / LOOPS / count
        gbs = size / seconds / 1e9
        name = name if shape.normed else f"{name} + add_rms_norm"
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
