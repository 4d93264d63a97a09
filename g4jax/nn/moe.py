"""A mixture of experts beside the dense MLP (26B-A4B): both see the same stream, through norms of their own."""

from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from g4jax.config import TextConfig
from g4jax.nn.linear import ColumnLinear
from g4jax.nn.mlp import GatedMLP
from g4jax.nn.norm import RMSNorm
from g4jax.nn.param import param
from g4jax.sharding import TP
from pallas_kernels import moe
from pallas_kernels.core import Implementation
from pallas_kernels.norm import Residual, add_rms_norm, sum_rms_norm


class Router(nnx.Module):
    """proj [E, D], scale [D], per_expert_scale [E]: softmax over all experts, the best k, renormalised, scaled."""

    def __init__(self, config: TextConfig, dtype: DTypeLike, implementation: Implementation | None):
        self.proj = ColumnLinear(config.num_experts, config.hidden_size, None, dtype, implementation)
        self.scale = param((config.hidden_size,), (None,), dtype)
        self.per_expert_scale = param((config.num_experts,), (None,), dtype)
        self.k = config.top_k_experts
        self.implementation: Implementation | None = implementation

    def __call__(
        self, z: Float[Array, "R D"], padding: Bool[Array, " R"] | None
    ) -> tuple[Float[Array, "R k"], Int[Array, "R k"]]:
        """`z` = rms(stream) * scale, where the norm has no weight of its own. Returns weights and expert ids, -1 for
        padding, all of which would go to the same few experts."""
        scale, factor = self.per_expert_scale[...], z.shape[-1] ** -0.5
        return moe.route(self.proj(z), scale, padding, k=self.k, factor=factor, implementation=self.implementation)


class Experts(nnx.Module):
    """gate_up_proj [E, 2F, D], down_proj [E, D, F]; each device holds some of the experts whole."""

    def __init__(self, config: TextConfig, dtype: DTypeLike, tp: int, implementation: Implementation | None):
        e, d, f = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = param((e, 2 * f, d), ("experts", None, None), dtype)
        self.down_proj = param((e, d, f), ("experts", None, None), dtype)
        self.tp = tp
        self.implementation: Implementation | None = implementation

    def partial(
        self, u: Float[Array, "R D"], weights: Float[Array, "R k"], ids: Int[Array, "R k"]
    ) -> Float[Array, "R D"]:
        """The weighted sum over those chosen experts that stand on this device."""
        gate_up, down = self.gate_up_proj[...], self.down_proj[...]
        if self.tp > 1:
            ids = ids - lax.axis_index(TP) * gate_up.shape[0]
        return moe.experts(u, weights, ids, gate_up, down, implementation=self.implementation)


class SparseFeedForward(nnx.Module):
    """post_1(mlp(pre(x))) + post_2(sum_e w_e expert_e(pre_2(x))), the router seeing x normed without weight.

    `_1` belongs to the dense branch and `_2` to the experts, as the checkpoint names them.
    """

    def __init__(self, config: TextConfig, dtype: DTypeLike, tp: int, implementation: Implementation | None):
        d, eps = config.hidden_size, config.rms_norm_eps
        self.router = Router(config, dtype, implementation)
        self.experts = Experts(config, dtype, tp, implementation)
        self.post_feedforward_layernorm_1 = RMSNorm(d, eps, dtype)
        self.pre_feedforward_layernorm_2 = RMSNorm(d, eps, dtype)
        self.post_feedforward_layernorm_2 = RMSNorm(d, eps, dtype)
        self.implementation: Implementation | None = implementation

    def after_norm(
        self, residual: Residual, norm: RMSNorm, mlp: GatedMLP, padding: Bool[Array, " R"] | None
    ) -> tuple[Float[Array, "R D"], Float[Array, "R D"]]:
        """The stream that `residual` stands for, and the sum of both branches of it: the dense one alone of padding."""
        norms = (norm.weight[...], self.router.scale[...], self.pre_feedforward_layernorm_2.weight[...])
        x, (h, z, u) = add_rms_norm(residual, norms, eps=norm.eps, implementation=self.implementation)
        chances, ids = self.router(z, padding)
        dense, sparse = mlp.down_proj.sum_over_devices((mlp.partial(h), self.experts.partial(u, chances, ids)))
        weights = (self.post_feedforward_layernorm_1.weight[...], self.post_feedforward_layernorm_2.weight[...])
        return x, sum_rms_norm((dense, sparse), weights, eps=norm.eps, implementation=self.implementation)
