"""How the benchmarks of the kernels take a time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

PEAK_GBS = {"H200": 4800.0, "H100": 3350.0, "MI300X": 5300.0}
"""Memory bandwidth of the datasheets."""


def median_seconds(call: Callable[[], Any], *, repeats: int = 7) -> float:
    """The median time of a call that is waited for, after two to warm up."""
    for _ in range(2):
        jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def percent_of_peak(gbs: float) -> float | None:
    """How much of the device's memory bandwidth that is; None where it is not known."""
    kind = jax.devices()[0].device_kind
    peak = next((value for name, value in PEAK_GBS.items() if name in kind), None)
    return None if peak is None else round(100 * gbs / peak, 1)
