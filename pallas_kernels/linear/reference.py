"""The products in plain jax.numpy: operands in the dtype of x, float32 accumulation, every result rounded once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int

Activation = Literal["gated", "times"]
"""What follows a product: `gated`: gelu of its first half times its second; `times`: its gelu times another array."""

LAST_AXES = (((1,), (1,)), ((), ()))


def linear(x: Float[Array, "R K"], w: Float[Array, "N K"]) -> Float[Array, "R N"]:
    """`x @ w.T`.

    XLA sums bfloat16 products in float32 and rounds on the way out. Asked for float32, the vendor's product would write
    twice the bytes, and a second kernel would round them.
    """
    return lax.dot_general(x, w, LAST_AXES, precision=_precision(x))


def unrounded_linear(x: Float[Array, "R K"], w: Float[Array, "N K"]) -> Float[Array, "R N"]:
    """`x @ w.T` in float32, as it was summed."""
    return lax.dot_general(x, w, LAST_AXES, precision=_precision(x), preferred_element_type=jnp.float32)


def argmax_linear(
    x: Float[Array, "R K"], w: Float[Array, "V K"], barred: Int[Array, " B"]
) -> tuple[Int[Array, " R"], Float[Array, " R"]]:
    return largest_column(unrounded_linear(x, w), barred)


def largest_column(
    product: Float[Array, "R V"], barred: Int[Array, " B"]
) -> tuple[Int[Array, " R"], Float[Array, " R"]]:
    """The first largest column of each row that is none of `barred` (of which those below zero are no column)."""
    if barred.size:
        product = product.at[:, jnp.where(barred < 0, product.shape[1], barred)].set(-jnp.inf, mode="drop")
    return jnp.argmax(product, axis=1).astype(jnp.int32), jnp.max(product, axis=1)


def _precision(x: Array) -> lax.Precision | None:
    return lax.Precision.HIGHEST if x.dtype == jnp.float32 else None


@functools.partial(jax.tree_util.register_dataclass, data_fields=("array", "part"), meta_fields=())
@dataclasses.dataclass(frozen=True)
class Columns:
    """The N columns from `part` * N on of a wider `array` [R, W]. A kernel reads them where they are; XLA would copy.

    Which part is data, not shape: one kernel serves all layers.
    """

    array: Any  # or, inside a kernel, the reference to it
    part: Any

    def cut(self, n: int) -> Float[Array, "R N"]:
        return lax.dynamic_slice_in_dim(self.array, self.part * n, n, axis=1)


def project(
    x: Float[Array, "R K"],
    w: Float[Array, "M K"],
    activation: Activation | None,
    times: Columns | None,
) -> Float[Array, "R N"]:
    """`x @ w.T` and its activation (M is 2N with `gated`, else N)."""
    out = linear(x, w)
    factor = None if times is None else times.cut(w.shape[0])
    return activate(tuple(jnp.split(out, 2, axis=-1)) if activation == "gated" else (out,), factor)


def activate(products: Sequence[Array], times: Array | None) -> Array:
    """gelu of the first product times the second or `times`, where there is either; else the product itself."""
    factor = products[1] if len(products) == 2 else times
    return products[0] if factor is None else gelu(products[0]) * factor


def gelu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """The tanh approximation, in float32."""
    return jax.nn.gelu(x.astype(jnp.float32), approximate=True).astype(x.dtype)
