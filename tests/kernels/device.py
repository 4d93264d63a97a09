"""On a GPU the kernel tests run the kernels themselves, elsewhere Pallas' interpreter."""

import jax

from pallas_kernels.core import Implementation

INTERPRET = jax.default_backend() == "cpu"
KERNEL: Implementation = "interpret" if INTERPRET else "triton"
