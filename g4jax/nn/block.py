"""One decoder layer.

A layer receives the residual stream as a sum that is still to be made (`Residual`) and returns it the same way, so that
norm, addition and the next projection can be one kernel.
"""

from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from g4jax.config import LayerSpec, TextConfig
from g4jax.nn.attention import Attention, Keys, PromptKeys, RowKeys
from g4jax.nn.linear import ColumnLinear, RowLinear
from g4jax.nn.mlp import GatedMLP
from g4jax.nn.moe import SparseFeedForward
from g4jax.nn.norm import RMSNorm
from g4jax.nn.param import param
from pallas_kernels.core import Implementation
from pallas_kernels.linear import Columns
from pallas_kernels.norm import Residual, Splits


class DecoderBlock(nnx.Module):
    """x += post(attention(pre(x))); x += post(ffn(pre(x))); x += post(per-layer gate); x *= layer_scalar."""

    def __init__(
        self, config: TextConfig, spec: LayerSpec, dtype: DTypeLike, tp: int, implementation: Implementation | None
    ):
        d, eps, width = config.hidden_size, config.rms_norm_eps, config.hidden_size_per_layer_input
        self.spec = spec
        self.eps = eps
        self.input_layernorm = RMSNorm(d, eps, dtype)
        self.self_attn = Attention(config, spec, dtype, tp, implementation)
        self.post_attention_layernorm = RMSNorm(d, eps, dtype)
        self.pre_feedforward_layernorm = RMSNorm(d, eps, dtype)
        self.mlp = GatedMLP(d, spec.intermediate_size, dtype, tp, implementation)
        self.sparse = SparseFeedForward(config, dtype, tp, implementation) if config.num_experts else None
        self.post_feedforward_layernorm = RMSNorm(d, eps, dtype)
        self.per_layer = PerLayerGate(d, width, spec.index, eps, dtype, implementation) if width else None
        self.layer_scalar = param((1,), (None,), dtype)

    def __call__(self, residual: Residual, keys: Keys, per_layer_inputs: Float[Array, "R LP"] | None) -> Residual:
        x, qkv = self.self_attn.project(residual, self.input_layernorm)
        return self._after_attention(x, self.self_attn(qkv, keys), keys.padding, per_layer_inputs)

    def of_rows(
        self,
        residual: Residual,
        keys: PromptKeys,
        per_layer_inputs: Float[Array, "R LP"] | None,
        rows: Int[Array, " R"],
        row_keys: RowKeys,
    ) -> Residual:
        """The same for `rows` alone, whose `per_layer_inputs` these are; the keys of all are kept."""
        x, qkv = self.self_attn.project(residual, self.input_layernorm)
        attended = self.self_attn.of_rows(qkv, keys, rows, row_keys)
        return self._after_attention(x[rows], attended, row_keys.padding, per_layer_inputs)

    def _after_attention(
        self,
        x: Float[Array, "R D"],
        attended: Splits,
        padding: Bool[Array, " R"] | None,
        per_layer_inputs: Float[Array, "R LP"] | None,
    ) -> Residual:
        residual = Residual(x, attended, self.post_attention_layernorm.weight[...], None)
        x, y = self._feed_forward(residual, padding)
        post = self.post_feedforward_layernorm
        if self.per_layer is not None and per_layer_inputs is not None:
            x, y = self.per_layer(Residual(x, y, post.weight[...], None), per_layer_inputs)
            post = self.per_layer.post_per_layer_input_norm
        return Residual(x, y, post.weight[...], self.layer_scalar[...])

    def _feed_forward(
        self, residual: Residual, padding: Bool[Array, " R"] | None
    ) -> tuple[Float[Array, "R D"], Splits]:
        if self.sparse is None:
            return self.mlp.after_norm(residual, self.pre_feedforward_layernorm)
        return self.sparse.after_norm(residual, self.pre_feedforward_layernorm, self.mlp, padding)


class PerLayerGate(nnx.Module):
    """proj(gelu(gate x) * ple): the layer's own input, let in by the stream. There is no norm before the gate."""

    def __init__(
        self, hidden: int, width: int, layer: int, eps: float, dtype: DTypeLike, implementation: Implementation | None
    ):
        self.per_layer_input_gate = ColumnLinear(width, hidden, None, dtype, implementation)
        self.per_layer_projection = RowLinear(hidden, width, None, dtype, 1, implementation)
        self.post_per_layer_input_norm = RMSNorm(hidden, eps, dtype)
        self.layer = layer
        self.eps = eps

    def __call__(
        self, residual: Residual, per_layer_inputs: Float[Array, "R LP"]
    ) -> tuple[Float[Array, "R D"], Splits]:
        own = Columns(per_layer_inputs, self.layer)
        x, gated = self.per_layer_input_gate.after_norm(residual, None, eps=self.eps, activation="times", times=own)
        return x, self.per_layer_projection(gated)
