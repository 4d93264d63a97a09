"""Attention: projections here, keys and values wherever they are kept.

A layer asks its `Keys` to attend, so the same layer serves a paged cache and a plain causal forward.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from g4jax.config import LayerSpec, RopeSpec, TextConfig
from g4jax.nn.linear import ColumnLinear, RowLinear
from g4jax.nn.norm import RMSNorm
from g4jax.nn.rope import rope_tables
from g4jax.sharding import check_divisible, local_kv_heads
from pallas_kernels.core import Implementation
from pallas_kernels.norm import Residual, Splits
from pallas_kernels.qkv import qkv_rope


class Heads(NamedTuple):
    """What a layer hands to its keys: the rows' heads of q, then k, then v, and what norms them.

    There is no v where v is k, and q alone where the layer reads another layer's keys: `k_norm` is None then. The rows
    may be splits, which the ops on them add up.
    """

    qkv: Splits
    q_norm: Float[Array, " H"]
    k_norm: Float[Array, " H"] | None
    num_heads: int
    eps: float


@runtime_checkable
class Keys(Protocol):
    """Where keys and values are kept."""

    @property
    def padding(self) -> Bool[Array, " R"] | None:
        """The rows that nobody reads; None where there are none. Experts do not compute them."""
        ...

    def attend(self, spec: LayerSpec, heads: Heads) -> Float[Array, "R O"]:
        """Norms and turns q and k, keeps k and v (unless the layer is KV-shared), and attends: `[R, num_heads * H]`."""
        ...


@runtime_checkable
class PromptKeys(Keys, Protocol):
    """Those of a step in which some rows are only there to be looked at by others."""

    def keep(self, spec: LayerSpec, heads: Heads) -> Float[Array, "R N H"]:
        """Norms and turns q and k, keeps k and v, and returns q."""
        ...


@runtime_checkable
class RowKeys(Keys, Protocol):
    """Those of one token in each row."""

    def look(self, spec: LayerSpec, q: Float[Array, "R N H"]) -> Float[Array, "R O"]:
        """Attends with queries whose own keys are kept already."""
        ...


class Attention(nnx.Module):
    """qkv_proj [(N + 2K) H, D] (per device: q, k, v; no v where v is k; q alone where shared), o_proj [D, NH]."""

    def __init__(
        self, config: TextConfig, spec: LayerSpec, dtype: DTypeLike, tp: int, implementation: Implementation | None
    ):
        check_divisible("num_attention_heads", config.num_attention_heads, tp)
        kv_projections = 0 if not spec.owns_kv else 1 if spec.k_eq_v else 2
        self.num_heads = config.num_attention_heads // tp
        rows = self.num_heads + kv_projections * local_kv_heads(spec.num_kv_heads, tp)
        heads = config.num_attention_heads * spec.head_dim
        self.spec = spec
        self.eps = config.rms_norm_eps
        self.qkv_proj = ColumnLinear(tp * rows * spec.head_dim, config.hidden_size, "heads", dtype, implementation)
        self.o_proj = RowLinear(config.hidden_size, heads, "heads", dtype, tp, implementation)
        self.q_norm = RMSNorm(spec.head_dim, config.rms_norm_eps, dtype)
        self.k_norm = RMSNorm(spec.head_dim, config.rms_norm_eps, dtype) if spec.owns_kv else None

    def project(self, residual: Residual, norm: RMSNorm) -> tuple[Float[Array, "R D"], Splits]:
        """The stream that `residual` stands for, and q, k, v of its norm."""
        return self.qkv_proj.after_norm(residual, norm, eps=self.eps, split=True)

    def __call__(self, qkv: Splits, keys: Keys) -> Splits:
        return self.o_proj(keys.attend(self.spec, self._heads(qkv)))

    def of_rows(
        self, qkv: Splits, keys: PromptKeys, rows: Int[Array, " Q"], row_keys: RowKeys
    ) -> Float[Array, "Q D"] | Float[Array, "S Q D"]:
        """Keeps the keys of all, attends with the queries of `rows` alone."""
        q = keys.keep(self.spec, self._heads(qkv))
        return self.o_proj(row_keys.look(self.spec, q[rows]))

    def _heads(self, qkv: Splits) -> Heads:
        k_norm = None if self.k_norm is None else self.k_norm.weight[...]
        return Heads(qkv, self.q_norm.weight[...], k_norm, self.num_heads, self.eps)


class DenseKeys:
    """No cache: B whole sequences of T tokens, every one attending to its own past. For training and for reading."""

    def __init__(self, batch: int, length: int, dtype: DTypeLike):
        self.batch, self.length, self.dtype = batch, length, dtype
        self.padding = None
        self.positions = jnp.tile(jnp.arange(length, dtype=jnp.int32), batch)
        self._tables: dict[RopeSpec, tuple[Array, Array]] = {}
        self._kv: dict[int, tuple[Array, Array]] = {}

    def attend(self, spec: LayerSpec, heads: Heads) -> Float[Array, "R O"]:
        if spec.rope not in self._tables:
            self._tables[spec.rope] = rope_tables(spec.rope, self.positions, self.dtype)
        cos, sin = self._tables[spec.rope]
        qkv, q_norm, k_norm, num_heads, eps = heads
        q, k, v = qkv_rope(qkv, q_norm, k_norm, cos, sin, num_heads=num_heads, k_eq_v=spec.k_eq_v, eps=eps)
        if k is not None and v is not None:
            self._kv[spec.index] = (self._batched(k), self._batched(v))
        k, v = self._kv[spec.kv_source]
        o = causal_attention(self._batched(q), k, v, window=spec.window)
        return o.reshape(self.batch * self.length, -1)

    def _batched(self, x: Float[Array, "R N H"]) -> Float[Array, "B T N H"]:
        return x.reshape(self.batch, self.length, *x.shape[1:])


def causal_attention(
    q: Float[Array, "B T N H"], k: Float[Array, "B T K H"], v: Float[Array, "B T K H"], *, window: int | None
) -> Float[Array, "B T N H"]:
    """softmax(q k^T) v, unscaled; query i sees keys i - window < j <= i; query head n uses KV head n // (N/K)."""
    batch, length, heads, size = q.shape
    kv_heads = k.shape[2]
    precision = lax.Precision.HIGHEST if q.dtype == jnp.float32 else None
    grouped = q.reshape(batch, length, kv_heads, heads // kv_heads, size)
    scores = jnp.einsum("btkgh,bskh->bkgts", grouped, k, preferred_element_type=jnp.float32, precision=precision)
    behind = jnp.arange(length)[:, None] - jnp.arange(length)[None, :]
    seen = behind >= 0 if window is None else (behind >= 0) & (behind < window)
    weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1).astype(q.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights, v, precision=precision).reshape(q.shape)
