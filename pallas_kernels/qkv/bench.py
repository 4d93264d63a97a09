"""Times qkv_rope_write of the released models' layers, each call depending on the one before through the pages.

python -m pallas_kernels.qkv.bench [--models E2B,31B] [--tokens 8,512,2048]

Prints model, layer kind, tokens, microseconds, GB/s read and written, percent of the device's bandwidth (rows that were
just written are served by the caches); the last line is all of it as JSON.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from pallas_kernels.qkv.api import qkv_rope_write
from pallas_kernels.qkv.shapes import PAGE_SIZE, SHAPES, Shape
from pallas_kernels.timing import median_seconds, percent_of_peak

CALLS = 200


def measure(shape: Shape, tokens: int) -> float:
    """Seconds per call."""
    h = shape.head_dim
    pages = [jnp.zeros((tokens // PAGE_SIZE + 2, shape.kv_heads, PAGE_SIZE, h), jnp.bfloat16) for _ in range(2)]
    shapes = (tokens, shape.columns), (h,), (h,), (tokens, h // 2), (tokens, h // 2)
    args = [jax.random.normal(jax.random.key(i), s, jnp.bfloat16) for i, s in enumerate(shapes)]
    slot = jnp.arange(tokens, dtype=jnp.int32)
    page, offset = 1 + slot // PAGE_SIZE, slot % PAGE_SIZE
    settings = {"num_heads": shape.num_heads, "k_eq_v": shape.k_eq_v, "eps": 1e-6, "implementation": "triton"}

    def chain(k_pages, v_pages, qkv, q_norm, k_norm, cos, sin):
        start = jnp.zeros((tokens, shape.num_heads, h), jnp.bfloat16), k_pages, v_pages

        def step(_, carry):
            return qkv_rope_write(qkv, q_norm, k_norm, cos, sin, carry[1], carry[2], page, offset, **settings)

        return lax.fori_loop(0, CALLS, step, start)

    run = jax.jit(chain, donate_argnums=(0, 1))

    def call() -> Any:
        q, *pages[:] = run(*pages, *args)
        return q

    return median_seconds(call) / CALLS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="E2B,E4B,26B-A4B,31B")
    parser.add_argument("--tokens", default="8,512,2048")
    options = parser.parse_args()
    results = []
    for shape in SHAPES:
        if shape.model not in options.models.split(","):
            continue
        for tokens in map(int, options.tokens.split(",")):
            seconds = measure(shape, tokens)
            written = (shape.num_heads + 2 * shape.kv_heads) * shape.head_dim
            gbs = 2 * tokens * (shape.columns + written + shape.head_dim) / seconds / 1e9
            results.append(
                {"model": shape.model, "kind": shape.kind, "tokens": tokens, "us": round(seconds * 1e6, 2)}
                | {"gbs": round(gbs), "percent": percent_of_peak(gbs)}
            )
            print(*results[-1].values(), flush=True)
    print(json.dumps({"device": jax.devices()[0].device_kind, "qkv_rope_write": results}))


if __name__ == "__main__":
    main()
