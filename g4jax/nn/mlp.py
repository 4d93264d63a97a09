"""The gated MLP: down(gelu(gate x) * up x)."""

from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from g4jax.nn.linear import ColumnLinear, RowLinear
from g4jax.nn.norm import RMSNorm
from pallas_kernels import linear
from pallas_kernels.core import Implementation
from pallas_kernels.norm import Residual, Splits


class GatedMLP(nnx.Module):
    """gate_up_proj [2F, D] (each device's gate rows, then its up rows), down_proj [D, F]."""

    def __init__(self, hidden: int, ffn: int, dtype: DTypeLike, tp: int, implementation: Implementation | None):
        self.gate_up_proj = ColumnLinear(2 * ffn, hidden, "ffn", dtype, implementation)
        self.down_proj = RowLinear(hidden, ffn, "ffn", dtype, tp, implementation)
        self.implementation: Implementation | None = implementation

    def after_norm(self, residual: Residual, norm: RMSNorm) -> tuple[Float[Array, "R D"], Splits]:
        """The stream that `residual` stands for, and the MLP of its norm."""
        x, hidden = self.gate_up_proj.after_norm(residual, norm, eps=norm.eps, activation="gated")
        return x, self.down_proj(hidden)

    def partial(self, h: Float[Array, "R D"]) -> Float[Array, "R D"]:
        """This device's part of the MLP of `h`."""
        hidden = linear.gated_linear(h, self.gate_up_proj.weight[...], implementation=self.implementation)
        return self.down_proj.partial(hidden)
