"""Which implementation of an op runs, and how a kernel is called."""

import functools
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
from jax.experimental.pallas import mosaic_gpu

Implementation = Literal["reference", "triton", "interpret"]
"""`reference`: plain jax.numpy. `triton`: the Pallas kernels. `interpret`: the same, run by Pallas' interpreter."""


plgpu: Any = mosaic_gpu
"""Which names it has depends on jax's version."""


class Unsupported(NotImplementedError):
    """A kernel that is asked for a case not its own; the reference takes it.

    Pallas raises NotImplementedError itself, and a fault must not look like a choice.
    """


def resolve(implementation: Implementation | None) -> Implementation:
    """The implementation to try first: the kernels on a GPU, the reference elsewhere, unless one is named."""
    if implementation is not None:
        return implementation
    return "triton" if jax.default_backend() in ("gpu", "cuda", "rocm") else "reference"


def has_mosaic() -> bool:
    """Whether this jax has the Mosaic GPU backend as our kernels speak to it; jax 0.10 has another one."""
    return jax.__version_info__ >= (0, 11)


def on_hopper() -> bool:
    """Whether what is traced is compiled for a Hopper GPU and can use its bulk copies: the Mosaic GPU kernels."""
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
    return has_mosaic() and any(name in device.device_kind for name in ("H100", "H200"))


F = TypeVar("F", bound=Callable)


def launcher(*static: str) -> Callable[[F], F]:
    """Makes a function that launches kernels a jitted one, with the arguments called `static` as constants.

    Inside a larger jit it is inlined, so nothing changes on the device, but layers of equal shapes share one lowering:
    unshared, lowering is 19 ms a kernel, seven seconds of Python for every step of E2B.
    """
    return functools.partial(jax.jit, static_argnames=static)  # pyright: ignore[reportReturnType]
