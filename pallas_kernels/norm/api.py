"""The public norms: the implementation is chosen here."""

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from pallas_kernels.core import Implementation, Unsupported, resolve
from pallas_kernels.norm import reference, triton
from pallas_kernels.norm.reference import Residual, Splits, rms_norm

__all__ = ["Residual", "Splits", "add_rms_norm", "rms_norm", "sum_rms_norm"]


def add_rms_norm(
    residual: Residual,
    then: tuple[Float[Array, " D"], ...],
    *,
    eps: float,
    implementation: Implementation | None = None,
) -> tuple[Float[Array, "R D"], tuple[Float[Array, "R D"], ...]]:
    """Computes the stream x' [R, D] and `rms_norm(x') * weight` [R, D] for every weight of `then`, in one launch."""
    chosen = resolve(implementation)
    if chosen != "reference":
        try:
            return triton.add_rms_norm(residual, then, eps=eps, interpret=chosen == "interpret")
        except Unsupported:
            pass
    return reference.add_rms_norm(residual, then, eps=eps)


def sum_rms_norm(
    parts: tuple[Float[Array, "R D"], ...],
    weights: tuple[Float[Array, " D"], ...],
    *,
    eps: float,
    implementation: Implementation | None = None,
) -> Float[Array, "R D"]:
    """The sum of `rms_norm(part) * weight` over parts [R, D], in one launch."""
    chosen = resolve(implementation)
    if chosen != "reference":
        try:
            return triton.sum_rms_norm(parts, weights, eps=eps, interpret=chosen == "interpret")
        except Unsupported:
            pass
    return reference.sum_rms_norm(parts, weights, eps=eps)
