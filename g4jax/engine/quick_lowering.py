"""Lowering dozens of programs in less Python time."""

import contextlib
import gc
import importlib
import sys
from collections.abc import Iterator
from typing import Any

from jax._src.pallas.triton import lowering as triton_lowering

TRITON_BINDINGS = ("jaxlib.mlir.dialects.tt", "jaxlib.mosaic.python.tt", "jaxlib.thunky.python.tt", "jax.jaxlib")
"""Where MLIR looks for a Python module of Triton's dialect, anew for every operation: there is none."""


@contextlib.contextmanager
def quick_lowering() -> Iterator[None]:
    """Without collecting garbage, with what is missing known to be missing, and each kernel lowered once: E2B's 38
    programs need 16 s instead of 33 (a 2-core machine)."""
    missing = [name for name in TRITON_BINDINGS if not _exists(name)]
    gc.disable()
    for name in missing:
        sys.modules[name] = None  # pyright: ignore[reportArgumentType]  # Its import fails at once.
    try:
        with _kernels_are_lowered_once():
            yield
    finally:
        for name in missing:
            del sys.modules[name]
        gc.enable()


@contextlib.contextmanager
def _kernels_are_lowered_once() -> Iterator[None]:
    """Programs that differ in their draws alone hold the same kernels: 228 different ones of 787 in those of E2B."""
    lower = triton_lowering.lower_jaxpr_to_triton_module
    lowered: dict[tuple[int, int], tuple[Any, ...]] = {}

    def lower_once(jaxpr: Any, grid_mapping: Any, *others: Any, **named: Any) -> Any:
        # A kernel traced once is one object in all programs. Kept here, so that no other object gets its id.
        key = id(jaxpr), id(grid_mapping)
        if key not in lowered:
            lowered[key] = lower(jaxpr, grid_mapping, *others, **named), jaxpr, grid_mapping
        return lowered[key][0]

    triton_lowering.lower_jaxpr_to_triton_module = lower_once
    try:
        yield
    finally:
        triton_lowering.lower_jaxpr_to_triton_module = lower


def _exists(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
