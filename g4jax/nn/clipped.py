"""The towers' linear layers, which may clamp what goes in and what comes out."""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, DTypeLike, Float

from g4jax.nn.param import param


class Linear(nnx.Module):
    """x @ weight.T with weight [N, K]: a plain product, and the whole weight on every device."""

    def __init__(self, n: int, k: int, dtype: DTypeLike):
        self.weight = param((n, k), (None, None), dtype)

    def __call__(self, x: Float[Array, "*B K"]) -> Float[Array, "*B N"]:
        weight = self.weight[...]
        precision = lax.Precision.HIGHEST if weight.dtype == jnp.float32 else None
        return jnp.matmul(x, weight.T, precision=precision)


class ClippedLinear(nnx.Module):
    """clamp(clamp(x, input_min, input_max) @ weight.T, output_min, output_max), weight [N, K].

    The bounds are stored numbers of shape (), calibrated with the weights; without `clipped` there are none.
    """

    def __init__(self, n: int, k: int, clipped: bool, dtype: DTypeLike):
        self.linear = Linear(n, k, dtype)
        self.input_min = param((), (), dtype) if clipped else None
        self.input_max = param((), (), dtype) if clipped else None
        self.output_min = param((), (), dtype) if clipped else None
        self.output_max = param((), (), dtype) if clipped else None

    def __call__(self, x: Float[Array, "*B K"]) -> Float[Array, "*B N"]:
        return _clamp(self.linear(_clamp(x, self.input_min, self.input_max)), self.output_min, self.output_max)


def _clamp(x: Array, low: nnx.Param | None, high: nnx.Param | None) -> Array:
    if low is None or high is None:
        return x
    return jnp.clip(x, low[...], high[...])
