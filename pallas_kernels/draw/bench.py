"""Microseconds of each kernel of a draw, as JAX's profiler tells, and whether the tokens are those of the reference.

python -m pallas_kernels.draw.bench [--rows 1,8,104]
"""

import argparse
import collections
import functools
import glob
import re
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from jax.profiler import ProfileData

from pallas_kernels.draw import Rules, draw, reference

VOCABULARY, CAP, BARRED, CALLS = 262_144, 30.0, (5, 77), 20
RULES: dict[str, dict[str, float]] = {
    "greedy": {"temperature": 0.0},
    "as the checkpoints ask": {"top_k": 64, "top_p": 0.95},
    "top-p alone": {"top_p": 0.95},
    "top-p alone, sharp": {"top_p": 0.95, "temperature": 0.2},
    "top-p alone, flat": {"top_p": 0.95, "temperature": 3.0},
    "top-k of a hundred": {"top_k": 100},
    "no filter": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1,8,104")
    args = parser.parse_args()
    print(jax.devices()[0].device_kind)
    for rows in map(int, args.rows.split(",")):
        logits = 6 * jax.random.normal(jax.random.key(rows), (rows, VOCABULARY))
        for name, fields in RULES.items():
            rules = rules_of(rows, **fields)
            expected = jax.jit(functools.partial(reference.draw, cap=CAP, barred=BARRED))(logits, rules)
            other = int(jnp.sum(expected != draw(logits, rules, cap=CAP, barred=BARRED)))
            times = kernel_times(logits, rules)
            told = ", ".join(f"{kernel} {us:.1f}" for kernel, us in times.items())
            print(f"{rows:4d} rows, {name}: {sum(times.values()):.1f} us ({told}); {other} other tokens", flush=True)


def rules_of(rows: int, **fields: float) -> Rules:
    values = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | fields
    floats = {name: jnp.full(rows, value, jnp.float32) for name, value in values.items() if name != "top_k"}
    seed, index = jnp.arange(rows, dtype=jnp.uint32), jnp.full(rows, 3, jnp.int32)
    return Rules(**floats, top_k=jnp.full(rows, values["top_k"], jnp.int32), seed=seed, index=index)


def kernel_times(logits: jax.Array, rules: Rules) -> dict[str, float]:
    """Of one call, by the kernel's name."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(CALLS):
                jax.block_until_ready(draw(logits, rules, cap=CAP, barred=BARRED))
        (file,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        plane = ProfileData.from_file(file).find_plane_with_name("/device:GPU:0")
    times: dict[str, list[float]] = collections.defaultdict(list)
    for line in plane.lines if plane is not None else ():
        for event in line.events if line.name.startswith("Stream") else ():
            if "hlo_module" in dict(event.stats):
                times[re.sub(r"[._\d]+$", "", event.name)].append(event.duration_ns / 1e3)
    return {name: float(np.median(durations)) for name, durations in times.items()}


if __name__ == "__main__":
    main()
