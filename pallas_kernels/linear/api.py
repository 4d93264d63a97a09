"""The public products: the implementation is chosen here."""

from __future__ import annotations

from jax import Array
from jaxtyping import Float, Int

from pallas_kernels.core import Implementation, Unsupported, on_hopper, resolve
from pallas_kernels.linear import mosaic, mosaic_argmax, reference, triton
from pallas_kernels.linear.reference import Activation, Columns
from pallas_kernels.linear.split_times import project_times
from pallas_kernels.linear.tiles import sums_heads
from pallas_kernels.norm.api import Residual, Splits, add_rms_norm

__all__ = [
    "Activation",
    "Columns",
    "argmax_linear",
    "gated_linear",
    "linear",
    "norm_linear",
    "split_linear",
    "unrounded_linear",
]


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


def argmax_linear(
    x: Float[Array, "R K"],
    w: Float[Array, "V K"],
    barred: Int[Array, " B"],
    *,
    implementation: Implementation | None = None,
) -> tuple[Int[Array, " R"], Float[Array, " R"]]:
    """The first column of `x @ w.T` [R, V] in which each row is largest, and the value there, summed in float32.

    Columns that stand in `barred` do not count; numbers outside of 0..V-1 there are no column.
    """
    chosen = resolve(implementation)
    if chosen == "triton" and on_hopper():
        try:
            return mosaic_argmax.argmax(x, w, barred)
        except Unsupported:
            pass
    return reference.largest_column(unrounded_linear(x, w, implementation=chosen), barred)


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
    split: bool = False,
    eps: float,
    implementation: Implementation | None = None,
) -> tuple[Float[Array, "R D"], Splits]:
    """The stream x' [R, D] and the product of `h = rms_norm(x') * then` (of x' itself when `then` is None) with w.

    The product is `h @ w.T` [R, N], with activation "gated" `gelu(h @ w[:F].T) * (h @ w[F:].T)` [R, F], with
    "times" `gelu(h @ w.T) * times` [R, N]. A single row takes one launch, more take two (norm, then product). With
    `split` and without an activation the product of many rows may be splits, as `split_linear` makes them: q, k, v.
    """
    if (activation == "times") != (times is not None):
        raise ValueError("times: given exactly when activation is 'times'")
    if split and activation is not None:
        raise ValueError("split: an activation needs the whole product")
    chosen = resolve(implementation)
    if chosen != "reference":
        try:
            return triton.norm_linear(residual, then, w, activation, times, eps=eps, interpret=chosen == "interpret")
        except Unsupported:
            pass
    x, normed = add_rms_norm(residual, () if then is None else (then,), eps=eps, implementation=chosen)
    split = split and sums_heads(w.shape[1], len(x))
    return x, _project(normed[0] if normed else x, w, activation, times, chosen, split=split)


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
    if times is not None and chosen != "reference":
        try:
            return project_times(x, w, times, interpret=chosen == "interpret")
        except Unsupported:
            pass
    if chosen != "reference":
        try:
            return triton.project(x, w, activation, times, split=split, interpret=chosen == "interpret")
        except Unsupported:
            pass
    if activation == "gated" and chosen == "triton" and on_hopper():
        try:
            return mosaic.gated(x, w)
        except Unsupported:
            pass
    return reference.project(x, w, activation, times)
