"""Times encoder attention on the vision towers of the released models.

python -m pallas_kernels.encoder_attention.bench [--shapes E2B,31B] [--candidates]

The outputs of a call are the queries of the next. Prints the tower, the batch (images x patches of each), the sizes,
microseconds, GB/s of q, k, v and output passed once, TFLOP/s of the
scores, percent of the nearer limit; the last line is all of it as JSON.
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
from jax import lax

from pallas_kernels.encoder_attention.shapes import SHAPES, Shape
from pallas_kernels.encoder_attention.triton import Blocks, choose_blocks, encoder_attention
from pallas_kernels.roofline import report
from pallas_kernels.timing import median_seconds

BATCHES = [(1, 2520), (2, 2520), (4, 2520), (1, 10080), (16, 630)]
"""Images, patches of each: one, two and four of 280 soft tokens, one of 1120, and 16 frames of a video."""
CHAIN = 20
OPTIONS: dict[str, str | bool] = {"xla_gpu_fail_ptx_compilation_on_register_spilling": True}
CANDIDATES = [
    Blocks(128, 64, 8, 3),
    Blocks(128, 64, 8, 2),
    Blocks(128, 128, 8, 2),
    Blocks(128, 128, 8, 3),
    Blocks(128, 32, 4, 3),
    Blocks(128, 64, 4, 2),
    Blocks(64, 64, 4, 3),
    Blocks(64, 64, 4, 2),
    Blocks(64, 128, 4, 2),
    Blocks(256, 64, 8, 2),
    Blocks(256, 64, 16, 2),
]


def operands(shape: Shape, images: int, patches: int) -> list[Any]:
    """Random queries, keys and values of full slots, and their lengths."""
    keys = jax.random.split(jax.random.key(0), 3)
    size = (images, patches, shape.num_heads, shape.head_dim)
    heads = [0.1 * jax.random.normal(key, size, jnp.bfloat16) for key in keys]
    return [*heads, jnp.full((images,), patches, jnp.int32)]


def work(shape: Shape, images: int, patches: int) -> dict[str, float]:
    """Bytes of the operands and the result, and the operations of the scores."""
    width = shape.num_heads * shape.head_dim
    return {"num_bytes": 8.0 * images * patches * width, "flops": 4.0 * images * patches**2 * width}


def compile_chain(blocks: Blocks, args: list[Any]) -> Any:
    """A program of CHAIN calls."""

    def chain(q, *rest):
        return lax.fori_loop(0, CHAIN, lambda _, q: encoder_attention(q, *rest, blocks=blocks), q)

    return jax.jit(chain).lower(*args).compile(OPTIONS)


def measure(name: str, batch: tuple[int, int], *, every: bool) -> list[dict[str, Any]]:
    """Times the chosen sizes, or all candidates; those that do not compile are left out."""
    shape = SHAPES[name]
    args = operands(shape, *batch)
    chosen = choose_blocks(shape.head_dim, jnp.dtype(jnp.bfloat16))
    forms = list(dict.fromkeys([chosen, *(CANDIDATES if every else ())]))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        programs = [(blocks, pool.submit(compile_chain, blocks, args)) for blocks in forms]
    results = []
    for blocks, program in programs:
        if error := program.exception():
            print(name, batch, tuple(blocks), "left out:", str(error).splitlines()[0][:100], flush=True)
            continue
        seconds = median_seconds(functools.partial(program.result(), *args)) / CHAIN
        results.append({"shape": name, "batch": "{}x{}".format(*batch), "blocks": list(blocks)})
        results[-1] |= report(seconds, **work(shape, *batch))
        print(*results[-1].values(), flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="E2B,31B")
    parser.add_argument("--candidates", action="store_true")
    options = parser.parse_args()
    results = []
    for name in options.shapes.split(","):
        for batch in BATCHES:
            results += measure(name, batch, every=options.candidates)
    print(json.dumps({"device": jax.devices()[0].device_kind, "encoder_attention": results}))


if __name__ == "__main__":
    main()
