"""Products with weights stored `[out, in]`, with what stands before and after them in a layer."""

from pallas_kernels.linear.api import (
    Activation,
    Columns,
    argmax_linear,
    gated_linear,
    linear,
    norm_linear,
    split_linear,
    unrounded_linear,
)

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
