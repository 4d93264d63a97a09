"""Which implementation of an op runs."""

from typing import Literal

import jax

Implementation = Literal["reference", "triton", "interpret"]
"""`reference`: plain jax.numpy. `triton`: the Pallas kernels. `interpret`: the same, run by Pallas' interpreter."""


class Unsupported(NotImplementedError):
    """A kernel that is asked for a case not its own; the reference takes it.

    Pallas raises NotImplementedError itself, and a fault must not look like a choice.
    """


def resolve(implementation: Implementation | None) -> Implementation:
    """The implementation to try first: the kernels on a GPU, the reference elsewhere, unless one is named."""
    if implementation is not None:
        return implementation
    return "triton" if jax.default_backend() in ("gpu", "cuda", "rocm") else "reference"
