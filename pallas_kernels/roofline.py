"""How near a kernel comes to what the device can do."""

from __future__ import annotations

import jax

from pallas_kernels.timing import PEAK_GBS

PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "MI300X": 1307.0}
"""Dense bfloat16 products, from the datasheets."""


def report(seconds: float, *, num_bytes: float, flops: float) -> dict[str, float | None]:
    """Microseconds, GB/s, TFLOP/s and the percentage of the nearer of the two limits (None on an unknown device)."""
    kind = jax.devices()[0].device_kind
    name = next((name for name in PEAK_TFLOPS if name in kind), None)
    floor = None if name is None else max(num_bytes / PEAK_GBS[name] / 1e9, flops / PEAK_TFLOPS[name] / 1e12)
    return {
        "us": round(seconds * 1e6, 2),
        "gbs": round(num_bytes / seconds / 1e9),
        "tflops": round(flops / seconds / 1e12, 2),
        "percent": None if floor is None else round(100 * floor / seconds, 1),
    }
