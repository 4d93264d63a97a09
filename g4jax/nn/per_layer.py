"""Per-layer embeddings (E2B, E4B): every layer gets a small vector of its own per token."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Int

from g4jax.nn.embed import rounded
from g4jax.nn.linear import ColumnLinear
from g4jax.nn.norm import RMSNorm
from g4jax.nn.param import param
from pallas_kernels.core import Implementation


class PerLayerInputs(nnx.Module):
    """ple[:, l] = (rms(h0 W^T / sqrt(D)) w + table[token] sqrt(P)) / sqrt(2), P numbers for each of L layers.

    The table is only gathered, never multiplied.
    """

    def __init__(
        self,
        vocab: int,
        num_layers: int,
        width: int,
        hidden: int,
        eps: float,
        dtype: DTypeLike,
        implementation: Implementation | None,
    ):
        self.num_layers, self.width = num_layers, width
        self.embed_tokens_per_layer = param((vocab, num_layers * width), (None, None), dtype)
        self.per_layer_model_projection = ColumnLinear(num_layers * width, hidden, None, dtype, implementation)
        self.per_layer_projection_norm = RMSNorm(width, eps, dtype)

    def __call__(self, tokens: Int[Array, " R"], h0: Float[Array, "R D"]) -> Float[Array, "R LP"]:
        """`h0`: the layers' input. Media placeholders must come as the pad token. Layer l's begin at column l P."""
        shape = (tokens.shape[0], self.num_layers, self.width)
        table = self.embed_tokens_per_layer[...]
        own = table[tokens].reshape(shape) * rounded(self.width**0.5, table.dtype)
        context = _scaled(self.per_layer_model_projection(h0), h0.shape[-1] ** -0.5).reshape(shape)
        return _scaled(self.per_layer_projection_norm(context) + own, 2**-0.5).reshape(tokens.shape[0], -1)


def _scaled(x: Array, factor: float) -> Array:
    # A python factor would be rounded to bfloat16 before the product; the reference multiplies with the exact one.
    return (x.astype(jnp.float32) * factor).astype(x.dtype)
