"""Times add_rms_norm at the hidden sizes of the released models, each call depending on the one before.

python -m pallas_kernels.norm.bench [--rows 1,8,64,2048]
"""

from __future__ import annotations

import argparse
import json

import jax
import jax.numpy as jnp
from jax import lax

from pallas_kernels.core import Implementation
from pallas_kernels.norm.api import Residual, add_rms_norm
from pallas_kernels.norm.shapes import HIDDEN_SIZES
from pallas_kernels.timing import median_seconds, percent_of_peak

CALLS = 400


def measure(rows: int, width: int, implementation: Implementation) -> float:
    """Seconds per call."""
    x, y = (jax.random.normal(jax.random.key(i), (rows, width), jnp.bfloat16) for i in range(2))
    weight, scale = jnp.ones((width,), jnp.bfloat16), jnp.full((1,), 0.5, jnp.bfloat16)

    @jax.jit
    def chain(x, y):
        def body(_, carry):
            x, y = carry
            residual = Residual(x, y, weight, scale)
            x, (h,) = add_rms_norm(residual, (weight,), eps=1e-6, implementation=implementation)
            return x, h

        return lax.fori_loop(0, CALLS, body, (x, y))

    return median_seconds(lambda: chain(x, y)) / CALLS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="1,8,64,2048")
    results = []
    for rows in map(int, parser.parse_args().rows.split(",")):
        for model, width in HIDDEN_SIZES.items():
            for implementation in ("triton", "reference"):
                seconds = measure(rows, width, implementation)
                gbs = 4 * rows * width * 2 / seconds / 1e9
                results.append(
                    {"model": model, "rows": rows, "form": implementation, "us": round(seconds * 1e6, 2)}
                    | {"gbs": round(gbs, 1), "percent": percent_of_peak(gbs)}
                )
                print(*results[-1].values(), flush=True)
    print(json.dumps({"device": jax.devices()[0].device_kind, "add_rms_norm": results}))


if __name__ == "__main__":
    main()
