"""The text decoder: one stack for every Gemma 4."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from g4jax.config import TextConfig
from g4jax.nn.attention import DenseKeys, Keys, PromptKeys, RowKeys
from g4jax.nn.block import DecoderBlock
from g4jax.nn.embed import Embedding
from g4jax.nn.norm import RMSNorm
from g4jax.nn.per_layer import PerLayerInputs
from pallas_kernels.core import Implementation
from pallas_kernels.norm import Residual, add_rms_norm


class Stream(NamedTuple):
    """What one layer hands to the next, whole: the residual stream and the per-layer inputs of all layers."""

    x: Float[Array, "R D"]
    per_layer: Float[Array, "R LP"] | None


class TextModel(nnx.Module):
    """Embedding, `config.layers`, final norm, tied head.

    Inside a `shard_map` over `tp` devices the parameters are local parts and the module computes with them; outside,
    `tp` is 1. `implementation` chooses the kernels (None: by backend).
    """

    def __init__(
        self,
        config: TextConfig,
        *,
        dtype: DTypeLike = jnp.bfloat16,
        tp: int = 1,
        implementation: Implementation | None = None,
    ):
        d, eps, width = config.hidden_size, config.rms_norm_eps, config.hidden_size_per_layer_input
        self.first_shared = config.first_shared
        self.eps = eps
        self.implementation: Implementation | None = implementation
        self.embed_tokens = Embedding(config.vocab_size, d, config.final_logit_softcapping, dtype, tp, implementation)
        self.per_layer_inputs = (
            PerLayerInputs(config.vocab_size_per_layer_input, config.num_layers, width, d, eps, dtype, implementation)
            if width
            else None
        )
        self.layers = nnx.List(DecoderBlock(config, spec, dtype, tp, implementation) for spec in config.layers)
        self.norm = RMSNorm(d, eps, dtype)

    def __call__(
        self,
        tokens: Int[Array, " R"],
        keys: Keys,
        *,
        rows: Int[Array, " Q"] | None = None,
        row_keys: RowKeys | None = None,
        soft: Float[Array, "R D"] | None = None,
        is_soft: Bool[Array, " R"] | None = None,
    ) -> Float[Array, "Q D"]:
        """Final-normed hidden states of `rows` of the packed `tokens` (of all of them where `rows` is None).

        Where `is_soft`, an encoder's output `soft` is the embedding, unscaled, and the token must be the pad token.
        The last layer that keeps keys keeps those of all tokens, but from its attention on only `rows` are computed,
        and those attend through `row_keys`: KV-shared layers store nothing.
        """
        return self.leave(self.enter(tokens, soft, is_soft), keys, rows=rows, row_keys=row_keys)

    def enter(
        self,
        tokens: Int[Array, " R"],
        soft: Float[Array, "R D"] | None = None,
        is_soft: Bool[Array, " R"] | None = None,
    ) -> Stream:
        """What the first layer gets."""
        x = self.embed_tokens(tokens)
        if soft is not None and is_soft is not None:
            x = jnp.where(is_soft[:, None], soft.astype(x.dtype), x)
        return Stream(x, None if self.per_layer_inputs is None else self.per_layer_inputs(tokens, x))

    def advance(self, stream: Stream, keys: Keys, count: int) -> Stream:
        """Through the first `count` layers."""
        residual = Residual(stream.x, None, None, None)
        for index in range(count):
            residual = self.layers[index](residual, keys, stream.per_layer)
        x, _ = add_rms_norm(residual, (), eps=self.eps, implementation=self.implementation)
        return Stream(x, stream.per_layer)

    def leave(
        self,
        stream: Stream,
        keys: Keys,
        *,
        first: int = 0,
        rows: Int[Array, " Q"] | None = None,
        row_keys: RowKeys | None = None,
    ) -> Float[Array, "Q D"]:
        """Through the layers from `first` on and the final norm; see `__call__`."""
        residual, per_layer = Residual(stream.x, None, None, None), stream.per_layer
        for index in range(first, len(self.layers)):
            layer = self.layers[index]
            if index == self.first_shared - 1 and rows is not None:
                assert isinstance(keys, PromptKeys) and row_keys is not None
                per_layer = None if per_layer is None else per_layer[rows]
                residual, keys = layer.of_rows(residual, keys, per_layer, rows, row_keys), row_keys
            else:
                residual = layer(residual, keys, per_layer)
        _, (h,) = add_rms_norm(residual, (self.norm.weight[...],), eps=self.eps, implementation=self.implementation)
        return h

    def logits(self, h: Float[Array, "Q D"]) -> Float[Array, "Q V"]:
        """Soft-capped float32 logits of final-normed hidden states."""
        return self.embed_tokens.logits(h)

    def uncapped_logits(self, h: Float[Array, "Q D"]) -> Float[Array, "Q V"]:
        """The same before the soft cap: who draws caps what it looks at."""
        return self.embed_tokens.uncapped_logits(h)

    @property
    def softcap(self) -> float | None:
        return self.embed_tokens.softcap

    def best_token(self, h: Float[Array, "Q D"], barred: tuple[int, ...]) -> Int[Array, " Q"]:
        """The tokens of the largest logits of final-normed hidden states, those of `barred` left out."""
        return self.embed_tokens.best(h, barred)

    def dense_logits(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T V"]:
        """Logits of whole sequences, without a cache: for training and for reading."""
        batch, length = tokens.shape
        keys = DenseKeys(batch, length, self.norm.weight[...].dtype)
        return self.logits(self(tokens.reshape(-1), keys)).reshape(batch, length, -1)
