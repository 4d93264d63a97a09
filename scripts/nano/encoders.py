"""Nano's eyes and ears arranged for training: random weights, and whole batches of pictures and sounds at once."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Int, UInt8

from g4jax.config import Gemma4Config
from g4jax.models.multimodal import Encoders
from g4jax.models.vision_layer import Patches, VisionAttention, axial_rope
from g4jax.tower_config import VisionConfig
from g4jax.weights.files import open_folder
from pallas_kernels.norm import rms_norm
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

    def __call__(self, h: Float[Array, "P D"], patches: Patches) -> Float[Array, "P D"]:
        q, k, v = (self._heads(project(h)) for project in (self.q_proj, self.k_proj, self.v_proj))
        q, k = axial_rope(self.q_norm(q), patches), axial_rope(self.k_norm(k), patches)
        v = rms_norm(v, None, eps=self.eps)
        more = -len(h) % EVEN
        q, k, v = (jnp.pad(x, [(0, more), (0, 0), (0, 0)]).swapaxes(0, 1) for x in (q, k, v))
        first, last = (jnp.pad(x, (0, more))[:, None] for x in (patches.first, patches.last))
        key = jnp.arange(len(h) + more)
        o = attention(q, k, v, (key >= first) & (key < last))
        return self.o_proj(o.swapaxes(0, 1)[: len(h)].reshape(len(h), -1))


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
    patch = jnp.arange(pixels.shape[1], dtype=jnp.int32)
    token, within = patch // 9, patch % 9

    def see(image: UInt8[Array, "P 768"], grid: Int[Array, " 2"]) -> Float[Array, "T D"]:
        columns = jnp.maximum(grid[1], 1)
        inside = patch < 9 * grid[0] * grid[1]
        last = jnp.where(inside, 9 * grid[0] * grid[1], 0)
        x = jnp.where(inside, 3 * (token % columns) + within % 3, 0)
        y = jnp.where(inside, 3 * (token // columns) + within // 3, 0)
        return encoders.see(image, x, y, jnp.zeros_like(last), last)

    return jax.vmap(see)(pixels, grids)


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
