"""Nano's eyes and ears arranged for training: random weights, and whole batches of pictures and sounds at once."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Int, UInt8

from g4jax.config import Gemma4Config
from g4jax.models.multimodal import Encoders
from g4jax.models.vision_layer import VisionAttention
from g4jax.tower_config import VisionConfig
from g4jax.weights.files import open_folder
from scripts.nano import shape
from scripts.nano.attention import attention
from scripts.nano.tables import TrainedPatchEmbedder

PARTS = ("vision_tower.", "audio_tower.", "embed_vision.", "embed_audio.")
BOUND = 64.0
"""The towers clamp at plus and minus this, far from what flows there."""


EVEN = 64
"""Products are fast with multiples of this."""


class TrainedAttention(VisionAttention):
    """Attention over a picture with a gradient that costs little."""

    def _attend(
        self, q: Float[Array, "P N H"], k: Float[Array, "P N H"], v: Float[Array, "P N H"], lengths: Int[Array, " I"]
    ) -> Float[Array, "I R N H"]:
        rows = len(q) // len(lengths)
        more = -rows % EVEN
        key = jnp.arange(rows + more)

        def heads_first(x: Float[Array, "P N H"]) -> Float[Array, "I N R H"]:
            slots = x.reshape(-1, rows, *x.shape[1:])
            return jnp.pad(slots, [(0, 0), (0, more), (0, 0), (0, 0)]).swapaxes(1, 2)

        def attend(q, k, v, length):
            return attention(q, k, v, (key < length) & (key[:, None] < length))

        out = jax.vmap(attend)(heads_first(q), heads_first(k), heads_first(v), lengths)
        return out.swapaxes(1, 2)[:, :rows]


def build(seed: int) -> Encoders:
    """Random float32 weights."""
    config = Gemma4Config.from_dict(shape.config())
    encoders = Encoders(config, dtype=jnp.float32, implementation="reference")
    assert isinstance(config.vision, VisionConfig)
    encoders.vision_tower.patch_embedder = TrainedPatchEmbedder(config.vision, jnp.float32)
    for layer in encoders.vision_tower.encoder.layers:
        layer.self_attn = TrainedAttention(config.vision, jnp.float32, "reference")
    state = nnx.state(encoders, nnx.Param)
    leaves, tree = jax.tree_util.tree_flatten_with_path(state)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [_initial(jax.tree_util.keystr(path), leaf, key) for (path, leaf), key in zip(leaves, keys, strict=True)]
    nnx.update(encoders, jax.tree_util.tree_unflatten(tree, drawn))
    return encoders


def load(folder: Path) -> dict[str, Array]:
    """The float32 parameters that a checkpoint of nano's shape has of its encoders; none of an older one without."""
    below = {name.removeprefix("model."): tensor for name, tensor in open_folder(folder).items()}
    return {
        name: jnp.array(tensor.bits().view(tensor.dtype).astype(np.float32))
        for name, tensor in below.items()
        if name.startswith(PARTS)
    }


def _initial(path: str, leaf: Array, key: Array) -> Array:
    if leaf.ndim == 0:
        return jnp.full((), -BOUND if "_min" in path else BOUND, jnp.float32)
    if "q_norm" in path or "k_norm" in path:
        return jnp.full(leaf.shape, leaf.shape[0] ** -0.25, jnp.float32)  # as in `network`: scores of variance 1
    if "per_dim_scale" in path or "bias" in path:
        return jnp.zeros(leaf.shape, jnp.float32)
    if leaf.ndim == 1:
        return jnp.ones(leaf.shape, jnp.float32)
    spread = 0.3 if "position_embedding_table" in path else (leaf.size / leaf.shape[0]) ** -0.5
    return spread * jax.random.normal(key, leaf.shape)


def see_all(encoders: Encoders, pixels: UInt8[Array, "I P 768"], grids: Int[Array, "I 2"]) -> Float[Array, "I T D"]:
    """Every picture by itself; the patches beyond its grid are padding."""
    soft = encoders.see(pixels.reshape(-1, pixels.shape[-1]), grids)
    return soft.reshape(len(pixels), -1, soft.shape[-1])


def hear_all(encoders: Encoders, frames: Float[Array, "C F B"], lengths: Int[Array, " C"]) -> Float[Array, "C T D"]:
    """Every sound by itself."""
    return jax.vmap(encoders.hear)(frames.astype(jnp.float32), jnp.maximum(lengths, 1))


def embeddings(
    encoders: Encoders,
    pixels: UInt8[Array, "I P 768"],
    grids: Int[Array, "I 2"],
    frames: Float[Array, "C F B"],
    lengths: Int[Array, " C"],
    dtype: DTypeLike,
) -> Float[Array, "S D"]:
    """A row of zeros, then all soft tokens of the pictures and all of the sounds, padding included."""
    seen, heard = see_all(encoders, pixels, grids), hear_all(encoders, frames, lengths)
    width = seen.shape[-1]
    rows = [jnp.zeros((1, width), dtype), seen.reshape(-1, width), heard.reshape(-1, width)]
    return jnp.concatenate([row.astype(dtype) for row in rows])
