"""The token table: embedding on the way in, logits on the way out."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, DTypeLike, Float, Int

from g4jax.nn.param import param
from g4jax.sharding import TP
from pallas_kernels import linear
from pallas_kernels.core import Implementation
from pallas_kernels.draw import capped


def rounded(value: float, dtype: DTypeLike) -> np.ndarray:
    """A constant as the reference holds it: rounded to the weights' dtype (sqrt(1536) is 39.25 in bfloat16)."""
    return np.asarray(value, dtype=dtype)


class Embedding(nnx.Module):
    """weight [V, D], tied. The vocabulary is split over `tp` devices."""

    def __init__(
        self,
        vocab: int,
        size: int,
        softcap: float | None,
        dtype: DTypeLike,
        tp: int,
        implementation: Implementation | None,
    ):
        self.weight = param((vocab, size), ("vocab", None), dtype)
        self.softcap = softcap
        self.tp = tp
        self.implementation: Implementation | None = implementation

    def __call__(self, tokens: Int[Array, " R"]) -> Float[Array, "R D"]:
        """E[token] * sqrt(D)."""
        table = self.weight[...]
        rows = table[tokens] if self.tp == 1 else self._from_all_devices(table, tokens)
        return rows * rounded(table.shape[-1] ** 0.5, table.dtype)

    def _from_all_devices(self, table: Float[Array, "V D"], tokens: Int[Array, " R"]) -> Float[Array, "R D"]:
        local = tokens - lax.axis_index(TP) * table.shape[0]
        mine = (local >= 0) & (local < table.shape[0])
        rows = table[jnp.clip(local, 0, table.shape[0] - 1)]
        return lax.psum(jnp.where(mine[:, None], rows, 0), TP)

    def best(self, h: Float[Array, "R D"], barred: tuple[int, ...]) -> Int[Array, " R"]:
        """The token of each row's largest logit that is none of `barred`. The cap would change no order."""
        table, tokens = self.weight[...], np.asarray(barred, np.int32)
        if self.tp == 1:
            return linear.argmax_linear(h, table, jnp.asarray(tokens), implementation=self.implementation)[0]
        first = lax.axis_index(TP) * table.shape[0]
        token, value = linear.argmax_linear(h, table, tokens - first, implementation=self.implementation)
        tokens, values = (lax.all_gather(part, TP) for part in (first + token, value))
        return jnp.take_along_axis(tokens, jnp.argmax(values, axis=0)[None], axis=0)[0]

    def logits(self, h: Float[Array, "R D"]) -> Float[Array, "R V"]:
        """cap * tanh(h E^T / cap) in float32 (the reference caps in bfloat16; sampling profits from the bits)."""
        return capped(self.uncapped_logits(h), self.softcap)

    def uncapped_logits(self, h: Float[Array, "R D"]) -> Float[Array, "R V"]:
        """h E^T in float32."""
        logits = linear.unrounded_linear(h, self.weight[...], implementation=self.implementation)
        return logits if self.tp == 1 else lax.all_gather(logits, TP, axis=1, tiled=True)
