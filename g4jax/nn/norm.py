"""RMSNorm. The scale is `w`, not `1 + w`, and float32 lasts until it has been applied."""

from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from g4jax.nn.param import param
from pallas_kernels import norm


class RMSNorm(nnx.Module):
    """y = x * (mean(x^2) + eps)^-1/2 * weight over the last axis, weight [D]."""

    def __init__(self, size: int, eps: float, dtype: DTypeLike):
        self.weight = param((size,), (None,), dtype)
        self.eps = eps

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return norm.rms_norm(x, self.weight[...], eps=self.eps)
