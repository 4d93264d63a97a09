"""On a GPU the kernel tests run the kernels themselves, elsewhere Pallas' interpreter."""

import jax
import pytest

from pallas_kernels.core import Implementation, has_mosaic

INTERPRET = jax.default_backend() == "cpu"
KERNEL: Implementation = "interpret" if INTERPRET else "triton"

needs_mosaic = pytest.mark.skipif(not has_mosaic(), reason="this jax has no such kernels")
simulates_mosaic = pytest.mark.skipif(
    not (has_mosaic() and INTERPRET),
    reason="Mosaic's simulator needs a CPU and a jax that has it; on a Hopper GPU see test_on_hopper",
)
