"""Times attend_decode (norm, RoPE, cache write and attention) of the released models' layers.

python -m pallas_kernels.decode_attention.bench [--models E2B,31B] [--kinds full] [--contexts 1024,32768]
    [--batches 1,8] [--candidates]

Every call reads other pages, so that the caches do not serve them, and depends on the one before through the pages.
What serves is timed ("chosen"), with `--candidates` Triton's tilings too. Prints model, layer kind, context, rows,
tiling, microseconds, GB/s of keys and values, percent of the device's bandwidth; the last line is all of it as JSON.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pallas_kernels.decode_attention import api, triton
from pallas_kernels.decode_attention.shapes import BATCHES, CONTEXTS, PAGE_SIZE, SHAPES, Shape
from pallas_kernels.decode_attention.tiling import Tiling, choose
from pallas_kernels.timing import median_seconds, percent_of_peak

POOL_BYTES = 2**32
"""Keys and values of a pool, many times the size of the caches."""
MAX_CONTEXT = 131072
CALLS = 32
LOOPS = 5
OPTIONS: dict[str, str | bool] = {"xla_gpu_fail_ptx_compilation_on_register_spilling": True}


def pages_per_row(shape: Shape, context: int) -> int:
    """Pages a row really uses: those of its window, or all."""
    seen = context if shape.window is None else min(context, shape.window + PAGE_SIZE)
    return -(-seen // PAGE_SIZE)


def tables(shape: Shape, context: int, rows: int, pool: int) -> list[np.ndarray]:
    """A table [rows, M] for each call; successive calls walk through the pool."""
    used, width = pages_per_row(shape, context), context // PAGE_SIZE
    order = np.random.default_rng(0).permutation(pool - 1) + 1
    result = []
    for call in range(CALLS):
        table = np.zeros((rows, MAX_CONTEXT // PAGE_SIZE), np.int32)
        pages = order[(np.arange(rows * used) + call * rows * used) % (pool - 1)]
        table[:, width - used : width] = pages.reshape(rows, used)
        result.append(table)
    return result


def compile_chain(shape: Shape, rows: int, pool: int, tiling: Tiling | None) -> Any:
    """A program of LOOPS * CALLS calls that hang on each other through the pages; without a tiling what serves."""
    settings = {"num_heads": shape.num_heads, "k_eq_v": shape.k_eq_v, "window": shape.window, "eps": 1e-6}
    if tiling is None:
        attend = functools.partial(api.attend_decode, **settings, implementation="triton")
    else:
        attend = functools.partial(triton.attend_decode, **settings, interpret=False, tiling=tiling)
    half, norm = (rows, shape.head_dim // 2), (shape.head_dim,)
    pages = (pool, shape.kv_heads, PAGE_SIZE, shape.head_dim)

    def chain(k_pages, v_pages, tables, positions, qkv, q_norm, k_norm, cos, sin):
        def body(_, carry):
            out, k_pages, v_pages = carry
            for table in tables:
                out, k_pages, v_pages = attend(qkv, q_norm, k_norm, cos, sin, k_pages, v_pages, table, positions)
            return out, k_pages, v_pages

        out = jnp.zeros((rows, shape.num_heads * shape.head_dim), jnp.bfloat16)
        return lax.fori_loop(0, LOOPS, body, (out, k_pages, v_pages))

    arrays = [
        jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in (pages, pages, (rows, shape.columns), norm, norm, half, half)
    ]
    table = jax.ShapeDtypeStruct((rows, MAX_CONTEXT // PAGE_SIZE), jnp.int32)
    lowered = jax.jit(chain, donate_argnums=(0, 1)).lower(
        *arrays[:2], [table] * CALLS, jax.ShapeDtypeStruct((rows,), jnp.int32), *arrays[2:]
    )
    return lowered.compile(OPTIONS)


def candidates(chosen: Tiling) -> list[Tiling]:
    """The chosen tiling first, then its neighbours."""
    changed = [{"num_stages": s} for s in (2, 3, 4, 5)] + [{"num_warps": 8}, {"num_warps": 2}]
    changed += [{"keys": 16, "num_stages": 4}, {"keys": 32, "num_stages": 3}, {"keys": 64, "num_stages": 2}]
    changed += [{"splits": s} for s in (1, max(1, chosen.splits // 2), min(256, chosen.splits * 2))]
    changed += [{"least": n} for n in (1, 2, 4, 16)]
    return list(dict.fromkeys([chosen, *(dataclasses.replace(chosen, **change) for change in changed)]))


def run_chain(run: Any, pages: list[Array], *args: Any) -> Array:
    """One timed call; the pages it gave away are replaced by those it returned."""
    out, *pages[:] = run(*pages, *args)
    return out


def measure(shape: Shape, context: int, rows: int, every: bool, threads: concurrent.futures.Executor) -> list[dict]:
    """Times every tiling of a load; those that do not compile are left out."""
    page_bytes = 2 * 2 * shape.kv_heads * PAGE_SIZE * shape.head_dim
    pool = POOL_BYTES // page_bytes
    if rows * pages_per_row(shape, context) >= pool:
        return []
    chosen = choose(rows, shape.kv_heads, shape.head_dim, 2, MAX_CONTEXT, shape.window)
    compiling = [
        (tiling, threads.submit(compile_chain, shape, rows, pool, tiling))
        for tiling in [None, *(candidates(chosen) if every else [])]
    ]
    programs = [(tiling, future, future.exception()) for tiling, future in compiling]  # compile first: timing is alone
    make = jax.jit(lambda *s: jnp.full(s, 0.01, jnp.bfloat16), static_argnums=range(4))
    pages = [make(pool, shape.kv_heads, PAGE_SIZE, shape.head_dim) for _ in range(2)]
    args = [jnp.ones(s, jnp.bfloat16) for s in [(rows, shape.columns)] + [(shape.head_dim,)] * 2]
    args += [jnp.ones((rows, shape.head_dim // 2), jnp.bfloat16)] * 2
    walk = [jnp.asarray(t) for t in tables(shape, context, rows, pool)]
    positions = jnp.full((rows,), context - 1, jnp.int32)
    seen = context if shape.window is None else min(context, shape.window)
    results = []
    for tiling, future, error in programs:
        name = "chosen" if tiling is None else "-".join(map(str, dataclasses.astuple(tiling)))
        if error is not None:
            print(
                shape.model, shape.kind, context, rows, name, "left out:", str(error).splitlines()[0][:100], flush=True
            )
            continue

        run = future.result()
        seconds = median_seconds(functools.partial(run_chain, run, pages, walk, positions, *args)) / LOOPS / CALLS
        gbs = rows * seen * page_bytes / PAGE_SIZE / seconds / 1e9
        results.append(
            {"model": shape.model, "kind": shape.kind, "context": context, "rows": rows, "tiling": name}
            | {"us": round(seconds * 1e6, 2), "gbs": round(gbs), "percent": percent_of_peak(gbs)}
        )
        print(*results[-1].values(), flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="E2B,E4B,26B-A4B,31B")
    parser.add_argument("--kinds", default="sliding,full")
    parser.add_argument("--contexts", default=",".join(map(str, CONTEXTS)))
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument(
        "--candidates", action="store_true", help="time other tilings too: keys-splits-least-warps-stages"
    )
    options = parser.parse_args()
    results = []
    with concurrent.futures.ThreadPoolExecutor(min(12, os.cpu_count() or 1)) as threads:
        for shape in SHAPES:
            if shape.model not in options.models.split(",") or shape.kind not in options.kinds.split(","):
                continue
            contexts = [int(c) for c in options.contexts.split(",")]
            for context in contexts[:1] if shape.window is not None else contexts:  # all windows are full ones
                for rows in map(int, options.batches.split(",")):
                    results += measure(shape, context, rows, options.candidates, threads)
    print(json.dumps({"device": jax.devices()[0].device_kind, "attend_decode": results}))


if __name__ == "__main__":
    main()
