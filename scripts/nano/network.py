"""The project's own text model, arranged for training: random weights, packed rows, watched routers."""

from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, DTypeLike, Float, Int, UInt16

from g4jax.config import Gemma4Config, LayerSpec, TextConfig
from g4jax.models.text import TextModel
from g4jax.nn.attention import Heads
from g4jax.nn.block import DecoderBlock
from g4jax.nn.moe import Experts, Router, SparseFeedForward
from g4jax.nn.rope import rope_tables
from g4jax.sharding import make_mesh
from g4jax.weights.abstract import abstract_model
from g4jax.weights.load import load_leaves
from pallas_kernels.qkv import qkv_rope
from scripts.nano import shape
from scripts.nano.attention import attention
from scripts.nano.tables import TrainedEmbedding, TrainedPerLayerInputs


class WatchedRouter(Router):
    """A router that leaves behind how unevenly it loads its experts (1 when even; Switch Transformer, eq. 4)."""

    def __call__(
        self, z: Float[Array, "R D"], padding: Bool[Array, " R"] | None
    ) -> tuple[Float[Array, "R k"], Int[Array, "R k"]]:
        weights, ids = super().__call__(z, padding)
        logits = self.proj(z).astype(jnp.float32) * z.shape[-1] ** -0.5
        experts = logits.shape[-1]
        load = jnp.mean(jax.nn.one_hot(ids, experts), axis=(0, 1))
        self.unevenness = nnx.Intermediate(experts * jnp.sum(load * jnp.mean(jax.nn.softmax(logits), axis=0)))
        return weights, ids


class NarrowExperts(Experts):
    """All experts in two products: a row's weights are applied before the second, so that no row has an output of the
    model's width for each expert."""

    def partial(
        self, u: Float[Array, "R D"], weights: Float[Array, "R k"], ids: Int[Array, "R k"]
    ) -> Float[Array, "R D"]:
        gate_up, down = self.gate_up_proj[...], self.down_proj[...]
        experts, width, inner = down.shape
        both = _product(u, gate_up.reshape(-1, width)).reshape(-1, experts, 2 * inner)
        gate, up = jnp.split(both, 2, axis=-1)
        share = jnp.sum(jax.nn.one_hot(ids, experts) * weights[..., None], axis=1)
        h = (jax.nn.gelu(gate, approximate=True) * up * share[..., None]).astype(u.dtype)
        return _product(h.reshape(len(u), -1), down.swapaxes(0, 1).reshape(width, -1)).astype(u.dtype)


def _product(x: Float[Array, "R K"], weight: Float[Array, "N K"]) -> Float[Array, "R N"]:
    precision = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return lax.dot_general(x, weight, (((1,), (1,)), ((), ())), precision, jnp.float32)


def build(seed: int) -> TextModel:
    """nano with random float32 weights."""
    config = Gemma4Config.from_dict(shape.config()).text
    model = TextModel(config, dtype=jnp.float32, implementation="reference")
    cap = config.final_logit_softcapping
    model.embed_tokens = TrainedEmbedding(config.vocab_size, config.hidden_size, cap, jnp.float32, 1, "reference")
    model.per_layer_inputs = TrainedPerLayerInputs(
        config.vocab_size_per_layer_input,
        config.num_layers,
        config.hidden_size_per_layer_input,
        config.hidden_size,
        config.rms_norm_eps,
        jnp.float32,
        "reference",
    )
    for layer in model.layers:
        sparse(layer).router = WatchedRouter(config, jnp.float32, "reference")
        sparse(layer).experts = NarrowExperts(config, jnp.float32, 1, "reference")
    state = nnx.state(model, nnx.Param)
    leaves, tree = jax.tree_util.tree_flatten_with_path(state)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [_initial(path_name(path), leaf, key, config) for (path, leaf), key in zip(leaves, keys, strict=True)]
    nnx.update(model, jax.tree_util.tree_unflatten(tree, drawn))
    return model


def load(folder: Path) -> dict[str, Array]:
    """The float32 parameters of a checkpoint of nano's shape, by name."""
    config = Gemma4Config.from_folder(folder).text
    leaves = load_leaves(folder, config, make_mesh(1), jnp.float32)
    return {param.path: leaf for param, leaf in zip(abstract_model(config, jnp.float32).params, leaves, strict=True)}


def sparse(layer: DecoderBlock) -> SparseFeedForward:
    """The mixture of experts of a layer, which every layer of nano has."""
    assert layer.sparse is not None
    return layer.sparse


def path_name(path: tuple) -> str:
    """`layers.0.mlp.down_proj.weight` of a tree path."""
    names = (str(getattr(key, "key", getattr(key, "name", key))) for key in path)
    return ".".join(name for name in names if name != "value")


def _initial(name: str, leaf: Array, key: Array, config: TextConfig) -> Array:
    if "q_norm" in name or "k_norm" in name:
        return jnp.full(
            leaf.shape, leaf.shape[0] ** -0.25, jnp.float32
        )  # scores of variance 1: there is no 1/sqrt(head_dim)
    if leaf.ndim == 1:
        return jnp.ones(leaf.shape, jnp.float32)
    if "embed_tokens_per_layer" in name:
        return config.hidden_size_per_layer_input**-0.5 * jax.random.normal(key, leaf.shape)
    if "router" in name:
        return 0.5 * jax.random.normal(key, leaf.shape)
    return leaf.shape[-1] ** -0.5 * jax.random.normal(key, leaf.shape)


class PackedKeys:
    """Rows that hold several samples each: a query sees the keys of its own sample only, and positions begin anew."""

    def __init__(self, segments: UInt16[Array, "B T"], dtype: DTypeLike):
        place = jnp.arange(segments.shape[1], dtype=jnp.int32)
        begins = jnp.diff(segments.astype(jnp.int32), axis=1, prepend=-1) != 0
        self.positions = (place - lax.cummax(jnp.where(begins, place, 0), axis=1)).reshape(-1)
        self.segments, self.dtype = segments, dtype
        self.padding = None
        self._kv: dict[int, tuple[Array, Array]] = {}

    def attend(self, spec: LayerSpec, heads: Heads) -> Float[Array, "R O"]:
        """See `g4jax.nn.attention.Keys`."""
        cos, sin = rope_tables(spec.rope, self.positions, self.dtype)
        qkv, q_norm, k_norm, num_heads, eps = heads
        q, k, v = qkv_rope(qkv, q_norm, k_norm, cos, sin, num_heads=num_heads, k_eq_v=spec.k_eq_v, eps=eps)
        if k is not None and v is not None:
            self._kv[spec.index] = (self._batched(k), self._batched(v))
        k, v = self._kv[spec.kv_source]
        window = min(spec.window or self.segments.shape[1], self.segments.shape[1])
        o = segment_attention(self._batched(q), k, v, self.segments, window=window)
        return o.reshape(qkv.shape[0], -1)

    def _batched(self, x: Float[Array, "R N H"]) -> Float[Array, "B T N H"]:
        return x.reshape(*self.segments.shape, *x.shape[1:])


def segment_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segments: UInt16[Array, "B T"],
    *,
    window: int,
) -> Float[Array, "B T N H"]:
    """Causal attention within a segment to the last `window` keys, in chunks of `window`; T is a multiple of it."""
    chunks, heads = q.shape[1] // window, q.shape[2]
    queries = q.reshape(len(q), chunks, window, *q.shape[2:]).swapaxes(2, 3)
    keys, values, theirs = (_with_previous_chunk(x, chunks) for x in (k, v, segments))
    reach = keys.shape[2]
    behind = jnp.arange(window)[:, None] + (reach - window) - jnp.arange(reach)[None, :]
    same = segments.reshape(len(q), chunks, window)[..., :, None] == theirs[..., None, :]
    seen = (same & (behind >= 0) & (behind < window))[:, :, None]
    keys, values = (jnp.repeat(x.swapaxes(2, 3), heads // x.shape[3], axis=2) for x in (keys, values))
    return attention(queries, keys, values, seen).swapaxes(2, 3).reshape(q.shape)


def _with_previous_chunk(x: Array, chunks: int) -> Array:
    """`[B, T, ...]` to `[B, C, 2 T/C, ...]`: every chunk behind the one before it (zeros before the first)."""
    chunked = x.reshape(x.shape[0], chunks, -1, *x.shape[2:])
    if chunks == 1:
        return chunked
    before = jnp.pad(chunked[:, :-1], [(0, 0), (1, 0)] + [(0, 0)] * (chunked.ndim - 2))
    return jnp.concatenate([before, chunked], axis=2)


def packed_logits(
    model: TextModel,
    tokens: UInt16[Array, "B T"],
    segments: UInt16[Array, "B T"],
    embeddings: Float[Array, "S D"] | None = None,
    source: Int[Array, "B T"] | None = None,
) -> tuple[Float[Array, "B T V"], Float[Array, ""]]:
    """Logits of packed rows, and the mean unevenness of the routers.

    Where `source` is not 0, that row of `embeddings` stands in the place of the token's.
    """
    keys = PackedKeys(segments, model.norm.weight[...].dtype)
    flat = tokens.reshape(-1).astype(jnp.int32)
    if embeddings is None or source is None:
        hidden = model(flat, keys)
    else:
        hidden = model(flat, keys, soft=_placed(embeddings, source.reshape(-1)), is_soft=source.reshape(-1) > 0)
    logits = model.logits(hidden).reshape(*tokens.shape, -1)
    routers = (sparse(layer).router for layer in model.layers)
    left = [router.unevenness[...] for router in routers if isinstance(router, WatchedRouter)]
    return logits, jnp.mean(jnp.stack(left))


def _placed(embeddings: Float[Array, "S D"], source: Int[Array, " R"]) -> Float[Array, "R D"]:
    """embeddings[source] where source > 0, zeros elsewhere.

    No row of `embeddings` stands in two places, so each can be told its place, and the gradient is a mere gather.
    """
    rows, count = len(source), len(embeddings)
    nowhere = rows + jnp.arange(count)
    places = nowhere.at[jnp.where(source > 0, source, count)].set(jnp.arange(rows), mode="drop")
    empty = jnp.zeros((rows, embeddings.shape[1]), embeddings.dtype)
    return empty.at[places].set(embeddings, mode="drop", unique_indices=True)
