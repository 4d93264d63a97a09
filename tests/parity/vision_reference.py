"""transformers' vision towers with random weights, and the soft tokens stored from them.

python tests/parity/vision_reference.py        writes tests/data/parity/vision-*.npz (needs torch)
"""

import zlib
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from g4jax.models.unified import VisionEmbedder
from g4jax.models.vision import VisionTower
from g4jax.tower_config import VisionConfig, VisionEmbedderConfig, vision_config

STORED = Path(__file__).parents[1] / "data" / "parity"
VisionVariant = Literal["clipped", "standardized", "12b"]
VISION_VARIANTS: tuple[VisionVariant, ...] = ("clipped", "standardized", "12b")

_TOWER: dict[str, Any] = {
    "model_type": "gemma4_vision",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "patch_size": 16,
    "pooling_kernel_size": 3,
    "position_embedding_size": 30,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "axial", "rope_theta": 100.0},
    "standardize": False,
    "use_clipped_linears": False,
}
_EMBEDDER: dict[str, Any] = {
    "model_type": "gemma4_unified_vision",
    "patch_size": 16,
    "pooling_kernel_size": 3,
    "mm_embed_dim": 64,
    "mm_posemb_size": 10,
    "rms_norm_eps": 1e-6,
}
RAW: dict[VisionVariant, dict[str, Any]] = {
    "clipped": _TOWER | {"use_clipped_linears": True},
    "standardized": _TOWER | {"standardize": True, "head_dim": 24},
    "12b": _EMBEDDER,
}
"""vision_configs as a config.json has them, one for each kind of release."""

IMAGES = ((2, 3), (5, 1), (1, 1))
"""Rows and columns of soft tokens of images that are seen together."""
SLOT = 8
"""Soft tokens of a slot: each image has padding."""


class Slots(NamedTuple):
    """The images as the towers take them, each in a slot."""

    pixels: np.ndarray
    x: np.ndarray
    y: np.ndarray
    lengths: np.ndarray


def raster_image(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Patches of a random image in raster order, and their (x, y): the reference's order."""
    height, width = 3 * rows, 3 * columns
    pixels = np.random.default_rng(rows * 100 + columns).integers(0, 256, (height * 16, width * 16, 3), np.uint8)
    patches = pixels.reshape(height, 16, width, 16, 3).swapaxes(1, 2).reshape(-1, 768)
    y, x = np.divmod(np.arange(height * width), width)
    return patches, np.stack((x, y), axis=1)


def cell_order(positions: np.ndarray) -> np.ndarray:
    """The order that puts the nine patches of each soft token together."""
    (x, y), columns = positions.T, positions[:, 0].max() // 3 + 1
    token = y // 3 * columns + x // 3
    return np.argsort(token * 9 + y % 3 * 3 + x % 3)


def slots() -> Slots:
    def padded(array: np.ndarray) -> np.ndarray:
        return np.pad(array, ((0, 9 * SLOT - len(array)), (0, 0)))

    pixels, positions, lengths = [], [], []
    for grid in IMAGES:
        patches, at = raster_image(*grid)
        order = cell_order(at)
        pixels.append(padded(patches[order]))
        positions.append(padded(at[order]).astype(np.int32))
        lengths.append(len(patches))
    return Slots(np.concatenate(pixels), *np.concatenate(positions).T, np.array(lengths, np.int32))


def our_model(variant: VisionVariant, implementation=None) -> VisionTower | VisionEmbedder:
    """The tower in float32, its parameters still zero."""
    config = vision_config(RAW[variant])
    if isinstance(config, VisionEmbedderConfig):
        return VisionEmbedder(config, dtype=jnp.float32)
    assert isinstance(config, VisionConfig)
    return VisionTower(config, dtype=jnp.float32, implementation=implementation)


def weights(variant: VisionVariant) -> dict[str, np.ndarray]:
    """A value for each parameter by its name; the same on every machine."""
    state = nnx.to_flat_state(nnx.state(our_model(variant), nnx.Param))
    return {
        name: np.asarray(_random(name, leaf.shape), np.float32)
        for name, leaf in ((".".join(map(str, p)), v) for p, v in state)
    }


def _random(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Activations stay near 1, and the bounds are so tight that a tenth or so of them is clipped."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, dtype=np.float32)
    if name.endswith(("put_min", "put_max")):
        return (1.5 + 0.2 * np.abs(values)) * np.float32(1 if name.endswith("max") else -1)
    if name.endswith("q_norm.weight"):
        return (1 + 0.1 * values) * np.float32(2 * shape[-1] ** -0.5)
    if name.endswith(("bias", "std_scale")) or (len(shape) == 1 and "norm" not in name and "ln" not in name):
        return values
    if len(shape) == 1:
        return 1 + 0.1 * values
    return values * np.float32(0.5 if "pos" in name else shape[-1] ** -0.5)


def our_tokens(variant: VisionVariant, implementation=None) -> np.ndarray:
    """Soft tokens of the images, one after the other."""
    model = our_model(variant, implementation)
    values = weights(variant)
    state = nnx.state(model, nnx.Param)
    filled = [
        (path, leaf.replace(jnp.asarray(values[".".join(map(str, path))]))) for path, leaf in nnx.to_flat_state(state)
    ]
    nnx.update(model, nnx.from_flat_state(filled))
    graph, state = nnx.split(model)
    inputs = [jnp.asarray(part) for part in slots()]
    used = inputs if isinstance(model, VisionTower) else inputs[:3]
    tokens = np.asarray(jax.jit(lambda state, *args: nnx.merge(graph, state)(*args))(state, *used))
    assert np.isfinite(tokens).all()
    parts = zip(tokens.reshape(len(IMAGES), SLOT, -1), IMAGES, strict=True)
    return np.concatenate([slot[: rows * columns] for slot, (rows, columns) in parts])


def reference_tokens(variant: VisionVariant) -> np.ndarray:
    """transformers' soft tokens of the images, one image after the other."""
    import torch

    model = _reference_model(variant)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights(variant).items()})
    images = [raster_image(*grid) for grid in IMAGES]
    if variant == "12b":
        images = [_merged(*image) for image in images]
    most = max(len(patches) for patches, _ in images)
    pixels = np.stack([np.pad(patches, ((0, most - len(patches)), (0, 0))) for patches, _ in images])
    at = np.stack([np.pad(at, ((0, most - len(at)), (0, 0)), constant_values=-1) for _, at in images])
    with torch.no_grad():
        inputs = torch.from_numpy(pixels).float() * (1 / 255), torch.from_numpy(at)
        tokens = model(*inputs).last_hidden_state
    if variant == "12b":
        tokens = tokens[inputs[1][..., 0] >= 0]
    return tokens.numpy()


def _reference_model(variant: VisionVariant):
    from torch.nn import Identity
    from transformers import Gemma4UnifiedTextConfig, Gemma4UnifiedVisionConfig, Gemma4VisionConfig
    from transformers.models.gemma4.modeling_gemma4 import Gemma4VisionModel
    from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedVisionEmbedder

    raw = {name: value for name, value in RAW[variant].items() if name != "model_type"}
    if variant != "12b":
        return Gemma4VisionModel(Gemma4VisionConfig(**raw)).eval()
    embedder = Gemma4UnifiedVisionEmbedder(Gemma4UnifiedVisionConfig(**raw), Gemma4UnifiedTextConfig())
    # The projection to the text's width is not the embedder's here.
    embedder.add_module("multimodal_embedder", Identity())
    return embedder.eval()


def _merged(patches: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 48 x 48 squares of an image in raster order, and their (x, y)."""
    width, height = positions.max(axis=0) + 1
    image = patches.reshape(height, width, 16, 16, 3).swapaxes(1, 2).reshape(height // 3, 48, width // 3, 48, 3)
    y, x = np.divmod(np.arange(height * width // 9), width // 3)
    return image.swapaxes(1, 2).reshape(-1, 48 * 48 * 3), np.stack((x, y), axis=1)


def store() -> None:
    for variant in VISION_VARIANTS:
        np.savez_compressed(STORED / f"vision-{variant}.npz", tokens=reference_tokens(variant))
        print(variant)


if __name__ == "__main__":
    store()
