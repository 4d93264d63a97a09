"""Matrix products with weights stored `[out, in]`, as in the checkpoint.

`ColumnLinear` splits its outputs over the devices, `RowLinear` its inputs (and then sums over the devices).
"""

import jax
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from g4jax.nn.norm import RMSNorm
from g4jax.nn.param import param
from g4jax.sharding import TP
from pallas_kernels import linear
from pallas_kernels.core import Implementation
from pallas_kernels.linear import Activation, Columns
from pallas_kernels.norm import Residual, Splits


class ColumnLinear(nnx.Module):
    """weight [N, K]; `axis` names what N is made of (None: every device holds all of it)."""

    def __init__(self, n: int, k: int, axis: str | None, dtype: DTypeLike, implementation: Implementation | None):
        self.weight = param((n, k), (axis, None), dtype)
        self.implementation: Implementation | None = implementation

    def __call__(self, x: Float[Array, "R K"]) -> Float[Array, "R N"]:
        return linear.linear(x, self.weight[...], implementation=self.implementation)

    def after_norm(
        self,
        residual: Residual,
        norm: RMSNorm | None,
        *,
        eps: float,
        activation: Activation | None = None,
        times: Columns | None = None,
        split: bool = False,
    ) -> tuple[Float[Array, "R D"], Splits]:
        """The stream that `residual` stands for, and this layer applied to its norm (None: to itself).

        With `split` whoever reads the result adds up splits, as the norm after a `RowLinear` does.
        """
        return linear.norm_linear(
            residual,
            None if norm is None else norm.weight[...],
            self.weight[...],
            activation=activation,
            times=times,
            split=split,
            eps=eps,
            implementation=self.implementation,
        )


class RowLinear(nnx.Module):
    """weight [N, K]; `axis` names what K is made of (None: every device holds all of it, and `tp` is 1).

    `tp` devices hold a part of K each and add their results. One that holds all of it may leave the sum to the norm
    that follows: the result then has splits, as `Residual.y` may.
    """

    def __init__(
        self, n: int, k: int, axis: str | None, dtype: DTypeLike, tp: int, implementation: Implementation | None
    ):
        self.weight = param((n, k), (None, axis), dtype)
        self.tp = tp
        self.implementation: Implementation | None = implementation

    def __call__(self, x: Float[Array, "R K"]) -> Splits:
        if self.tp == 1:
            return linear.split_linear(x, self.weight[...], implementation=self.implementation)
        return self.sum_over_devices(self.partial(x))

    def partial(self, x: Float[Array, "R K"]) -> Float[Array, "R N"]:
        """This device's part of the product."""
        return linear.linear(x, self.weight[...], implementation=self.implementation)

    def sum_over_devices(self, y):
        return jax.lax.psum(y, TP) if self.tp > 1 else y
