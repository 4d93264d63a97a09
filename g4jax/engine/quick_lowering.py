"""Lowering dozens of programs in less Python time."""

import contextlib
import gc
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from jax._src.core import Jaxpr
from jax._src.pallas.core import GridMapping
from jax._src.pallas.mosaic_gpu import lowering as mosaic_lowering
from jax._src.pallas.mosaic_gpu.core import Mesh
from jax._src.pallas.triton import lowering as triton_lowering

TRITON_BINDINGS = ("jaxlib.mlir.dialects.tt", "jaxlib.mosaic.python.tt", "jaxlib.thunky.python.tt", "jax.jaxlib")
"""Where MLIR looks for a Python module of Triton's dialect, anew for every operation: there is none."""

LOWERINGS = (
    (triton_lowering, "lower_jaxpr_to_triton_module"),
    (mosaic_lowering, "lower_unpipelined_jaxpr_to_module"),
)
IDENTIFYING = (Jaxpr, GridMapping, Mesh)
"""Arguments of a lowering that tell one kernel from another: its body and its grid."""


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
    with contextlib.ExitStack() as stack:
        for module, name in LOWERINGS:
            stack.enter_context(_called_once(module, name))
        yield


@contextlib.contextmanager
def _called_once(module: ModuleType, name: str) -> Iterator[None]:
    """With the function `name` of a module called once for each jaxpr and what else tells it from others."""
    lower = getattr(module, name, None)
    if lower is None:  # an older jax has no such kernels of ours
        yield
        return
    lowered: dict[tuple[int, ...], tuple[Any, ...]] = {}

    def lower_once(*given: Any, **named: Any) -> Any:
        # A kernel traced once is one object in all programs. Kept here, so that no other object gets its id.
        key = tuple(id(x) for x in given if isinstance(x, IDENTIFYING))
        if key not in lowered:
            lowered[key] = lower(*given, **named), given
        return lowered[key][0]

    setattr(module, name, lower_once)
    try:
        yield
    finally:
        setattr(module, name, lower)


def _exists(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
