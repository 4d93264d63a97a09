"""Lowering dozens of programs in less Python time."""

import contextlib
import gc
import importlib
import sys
from collections.abc import Iterator

TRITON_BINDINGS = ("jaxlib.mlir.dialects.tt", "jaxlib.mosaic.python.tt", "jaxlib.thunky.python.tt", "jax.jaxlib")
"""Where MLIR looks for a Python module of Triton's dialect, anew for every operation: there is none."""


@contextlib.contextmanager
def quick_lowering() -> Iterator[None]:
    """Without collecting garbage, and with what is missing known to be missing: 30 % faster (E4B's 37 programs)."""
    missing = [name for name in TRITON_BINDINGS if not _exists(name)]
    gc.disable()
    for name in missing:
        sys.modules[name] = None  # pyright: ignore[reportArgumentType]  # Its import fails at once.
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]
        gc.enable()


def _exists(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
