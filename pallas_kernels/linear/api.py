"""The public products: the implementation is chosen here."""

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from pallas_kernels.core import Implementation, Unsupported, on_hopper, resolve
from pallas_kernels.linear import mosaic, reference, triton
from pallas_kernels.linear.reference import Activation, Columns
from pallas_kernels.linear.split_times import project_times
from pallas_kernels.norm.api import Residual, Splits, add_rms_norm

__all__ = ["Activation", "Columns", "gated_linear", "linear", "norm_linear", "split_linear", "unrounded_linear"]


def linear(
    x: Float[Array, "R K"], w: Float[Array, "N K"], *, implementation: Implementation | None = None
) -> Float[Array, "R N"]:
    """`x @ w.T`."""
    return _project(x, w, None, None, implementation)


def unrounded_linear(
    x: Float[Array, "R K"], w: Float[Array, "N K"], *, implementation: Implementation | None = None
) -> Float[Array, "R N"]:
    """`x @ w.T` in float32, not rounded to the operands' dtype: logits, of which sampling needs every bit."""
    chosen = resolve(implementation)
    if chosen != "reference":
        try:
            return triton.project(x, w, None, None, rounded=False, interpret=chosen == "interpret")
        except Unsupported:
            pass
    return reference.unrounded_linear(x, w)


def split_linear(
    x: Float[Array, "R K"], w: Float[Array, "N K"], *, implementation: Implementation | None = None
) -> Splits:
    """`x @ w.T` [R, N], or S float32 sums [S, R, N] over parts of K: made for `Residual.y`, where a norm adds them up.

    A kernel splits K where few outputs would keep only a part of the device busy (`tiles.choose_tile`); the plain
    reference never does.
    """
    return _project(x, w, None, None, implementation, split=True)


def gated_linear(
    x: Float[Array, "R K"], w: Float[Array, "M K"], *, implementation: Implementation | None = None
) -> Float[Array, "R F"]:
    """`gelu(x @ w[:F].T) * (x @ w[F:].T)` with w [2F, K]."""
    return _project(x, w, "gated", None, implementation)


def norm_linear(
    residual: Residual,
    then: Float[Array, " D"] | None,
    w: Float[Array, "M D"],
    *,
    activation: Activation | None = None,
    times: Columns | None = None,
    eps: float,
    implementation: Implementation | None = None,
) -> tuple[Float[Array, "R D"], Float[Array, "R N"]]:
    """The stream x' [R, D] and the product of `h = rms_norm(x') * then` (of x' itself when `then` is None) with w.

    The product is `h @ w.T` [R, N], with activation "gated" `gelu(h @ w[:F].T) * (h @ w[F:].T)` [R, F], with
    "times" `gelu(h @ w.T) * times` [R, N]. A few rows take one launch, more take two (norm, then product).
    """
    if (activation == "times") != (times is not None):
        raise ValueError("times: given exactly when activation is 'times'")
    chosen = resolve(implementation)
    if chosen != "reference":
        try:
            return triton.norm_linear(residual, then, w, activation, times, eps=eps, interpret=chosen == "interpret")
        except Unsupported:
            pass
    x, normed = add_rms_norm(residual, () if then is None else (then,), eps=eps, implementation=chosen)
    return x, _project(normed[0] if normed else x, w, activation, times, chosen)


def _project(
    x: Float[Array, "R K"],
    w: Float[Array, "M K"],
    activation: Activation | None,
    times: Columns | None,
    implementation: Implementation | None,
    *,
    split: bool = False,
) -> Splits:
    chosen = resolve(implementation)
    if chosen != "reference":
        try:
            return triton.project(x, w, activation, times, split=split, interpret=chosen == "interpret")
        except Unsupported:
            pass
    if times is not None and chosen != "reference":
        try:
            return project_times(x, w, times, interpret=chosen == "interpret")
        except Unsupported:
            pass
    if activation == "gated" and chosen == "triton" and on_hopper():
        try:
            return mosaic.gated(x, w)
        except Unsupported:
            pass
    return reference.project(x, w, activation, times)
