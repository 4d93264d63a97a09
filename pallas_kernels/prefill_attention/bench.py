"""Times prefill attention on the layers of the released models.

python -m pallas_kernels.prefill_attention.bench [--shapes E2B-full,31B-sliding] [--candidates]

The outputs of a call are the queries of the next. What serves is timed ("chosen"), with `--candidates` Triton's sizes
too. Prints the layer, the batch (sequences x new tokens @ context), the sizes, microseconds, GB/s of keys and values
read once, TFLOP/s of the visible scores, percent of the nearer limit; the last line is all of it as JSON.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pallas_kernels.prefill_attention import api, triton
from pallas_kernels.prefill_attention.shapes import PAGE_SIZE, SHAPES, Shape
from pallas_kernels.prefill_attention.triton import Blocks
from pallas_kernels.roofline import report
from pallas_kernels.timing import median_seconds

BATCHES = [(1, 2048, 2048), (8, 256, 256), (1, 512, 8192), (1, 2048, 32768)]
"""Sequences, new tokens of each, context of each after this piece."""
CHAIN = 20
OPTIONS: dict[str, str | bool] = {"xla_gpu_fail_ptx_compilation_on_register_spilling": True}
CANDIDATES = {
    256: [
        Blocks(128, 64, 8, 2),
        Blocks(128, 32, 8, 3),
        Blocks(128, 32, 8, 2),
        Blocks(64, 32, 8, 3),
        Blocks(64, 64, 8, 2),
    ],
    512: [Blocks(64, 32, 8, 2), Blocks(64, 16, 8, 3), Blocks(64, 16, 8, 2), Blocks(32, 32, 8, 2), Blocks(32, 16, 4, 3)],
}


def operands(shape: Shape, sequences: int, new: int, context: int) -> list[Any]:
    """Random queries and pages, and the integers of the batch."""
    pages_each = -(-context // PAGE_SIZE)
    keys = jax.random.split(jax.random.key(0), 3)
    pages = (1 + sequences * pages_each, shape.num_kv_heads, PAGE_SIZE, shape.head_dim)
    floats = [(sequences * new, shape.num_heads, shape.head_dim), pages, pages]
    table = 1 + np.random.default_rng(0).permutation(sequences * pages_each).reshape(sequences, pages_each)
    integers = [table, new * np.arange(sequences), np.full(sequences, new), np.full(sequences, context)]
    integers.append(np.tile(np.arange(context - new, context), sequences))
    return [0.1 * jax.random.normal(k, s, jnp.bfloat16) for k, s in zip(keys, floats, strict=True)] + [
        jnp.asarray(i, jnp.int32) for i in integers
    ]


def work(shape: Shape, sequences: int, new: int, context: int) -> dict[str, float]:
    """Bytes of the keys and values some query sees, and the operations of the visible scores."""
    seen = np.minimum(np.arange(context - new, context) + 1, shape.window or context)
    keys = context if shape.window is None else min(context, new + shape.window - 1)
    return {
        "num_bytes": 4.0 * sequences * keys * shape.num_kv_heads * shape.head_dim,
        "flops": 4.0 * sequences * float(seen.sum()) * shape.num_heads * shape.head_dim,
    }


def compile_chain(shape: Shape, blocks: Blocks | None, args: list[Any]) -> Any:
    """A program of CHAIN calls; without sizes of what serves."""
    if blocks is None:
        attend = functools.partial(api.prefill_attention, window=shape.window, implementation="triton")
    else:
        attend = functools.partial(triton.prefill_attention, window=shape.window, blocks=blocks)

    def chain(q, *rest):
        def call(_, q):
            return attend(q, *rest).reshape(q.shape)

        return lax.fori_loop(0, CHAIN, call, q)

    return jax.jit(chain).lower(*args).compile(OPTIONS)


def measure(name: str, batch: tuple[int, int, int], *, every: bool) -> list[dict[str, Any]]:
    """Times the chosen sizes, or all candidates; those that do not compile are left out."""
    shape = SHAPES[name]
    args = operands(shape, *batch)
    forms = [None, *(CANDIDATES[shape.head_dim] if every else ())]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        programs = [(blocks, pool.submit(compile_chain, shape, blocks, args)) for blocks in forms]
    results = []
    for blocks, program in programs:
        if error := program.exception():
            print(name, batch, blocks, "left out:", str(error).splitlines()[0][:100], flush=True)
            continue
        seconds = median_seconds(functools.partial(program.result(), *args)) / CHAIN
        batch_name = "{}x{}@{}".format(*batch)
        results.append({"shape": name, "batch": batch_name, "blocks": list(blocks or ["chosen"])})
        results[-1] |= report(seconds, **work(shape, *batch))
        print(*results[-1].values(), flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="E2B-sliding,E2B-full,31B-sliding,31B-full")
    parser.add_argument("--candidates", action="store_true")
    options = parser.parse_args()
    results = []
    for name in options.shapes.split(","):
        for batch in BATCHES:
            results += measure(name, batch, every=options.candidates)
    print(json.dumps({"device": jax.devices()[0].device_kind, "prefill_attention": results}))


if __name__ == "__main__":
    main()
