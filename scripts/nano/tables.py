"""Tables whose gradient is a product with one-hot rows: thousands of rows added to the same few entries, one after the
other, would take longer than the whole model."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from g4jax.models.vision import PatchEmbedder, unit_interval
from g4jax.nn.embed import Embedding, rounded
from g4jax.nn.per_layer import PerLayerInputs


@jax.custom_vjp
def taken(table: Float[Array, "V D"], index: Int[Array, " R"]) -> Float[Array, "R D"]:
    """table[index]."""
    return table[index]


def _forward(table: Array, index: Array) -> tuple[Array, tuple[Array, Array]]:
    return table[index], (table, index)


def _backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, None]:
    table, index = kept
    chosen = jax.nn.one_hot(index, table.shape[0], dtype=gradient.dtype)
    summed = lax.dot_general(chosen, gradient, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return summed.astype(table.dtype), None


taken.defvjp(_forward, _backward)


class TrainedEmbedding(Embedding):
    """The token table of a single device."""

    def __call__(self, tokens: Int[Array, " R"]) -> Float[Array, "R D"]:
        table = self.weight[...]
        return taken(table, tokens) * rounded(table.shape[-1] ** 0.5, table.dtype)


class TrainedPerLayerInputs(PerLayerInputs):
    """The same numbers, whose table is taken apart from the rest."""

    def __call__(self, tokens: Int[Array, " R"], h0: Float[Array, "R D"]) -> Float[Array, "R LP"]:
        shape = (len(tokens), self.num_layers, self.width)
        table = self.embed_tokens_per_layer[...]
        own = taken(table, tokens).reshape(shape) * rounded(self.width**0.5, table.dtype)
        context = (self.per_layer_model_projection(h0) * h0.shape[-1] ** -0.5).reshape(shape)
        return ((self.per_layer_projection_norm(context) + own) * 2**-0.5).reshape(len(tokens), -1)


class TrainedPatchEmbedder(PatchEmbedder):
    """The tables of columns and rows of a picture."""

    def __call__(self, pixels: UInt8[Array, "P 768"], x: Int[Array, " P"], y: Int[Array, " P"]) -> Float[Array, "P D"]:
        table = self.position_embedding_table[...]
        centred = (2 * (unit_interval(pixels) - 0.5)).astype(table.dtype)
        return self.input_proj(centred) + (taken(table[0], x) + taken(table[1], y))
