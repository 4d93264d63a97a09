"""The logits of transformers on a CPU, of a prompt with or without media."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from g4jax.config import Gemma4Config
from g4jax.media.inputs import PlacedInput, SoftInput
from g4jax.models.vision import places
from g4jax.tower_config import VisionEmbedderConfig


def reference_logits(model: str, tokens: list[int], media: tuple[PlacedInput, ...], dtype: str) -> np.ndarray:
    """Float32 `[T, V]`. What fills the placeholders is given as our own patches and frames."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    auto = AutoModelForImageTextToText if media else AutoModelForCausalLM
    reference = auto.from_pretrained(model, dtype=kind).eval()
    inputs = _inputs(tokens, media, Gemma4Config.from_folder(model)) if media else {}
    with torch.no_grad():
        return reference(input_ids=torch.tensor([tokens]), **inputs).logits[0].float().numpy()


def _inputs(tokens: list[int], media: tuple[PlacedInput, ...], config: Gemma4Config) -> dict[str, Any]:
    import torch

    ids = (config.image_token_id, config.video_token_id, config.audio_token_id)
    types = {token: number for number, token in enumerate(ids, 1)}
    inputs: dict[str, Any] = {"mm_token_type_ids": torch.tensor([[types.get(token, 0) for token in tokens]])}
    images, frames, sounds = (
        [placed.input for placed in media if placed.input.kind == kind] for kind in ("image", "video", "audio")
    )
    merged = isinstance(config.vision, VisionEmbedderConfig)
    if images:
        inputs["pixel_values"], inputs["image_position_ids"] = _padded(images, merged=merged)
    if frames:
        inputs["pixel_values_videos"], inputs["video_position_ids"] = _padded(frames, merged=merged)
        inputs["num_frames_per_video"] = torch.tensor([len(frames)])
    if sounds:
        inputs["input_features"], inputs["input_features_mask"] = _sounds(sounds)
    return inputs


def _padded(images: list[SoftInput], *, merged: bool):
    """Pixels and places as transformers takes them; `merged`: a token's nine patches put together (the 12B)."""
    import torch

    most = max(piece.num_tokens if merged else len(piece.data) for piece in images)
    pixels = np.zeros((len(images), most, 6912 if merged else 768), np.float32)
    positions = np.full((len(images), most, 2), -1)
    for row, piece in enumerate(images):
        values = piece.data.astype(np.float32) * np.float32(1 / 255)
        where = np.stack(places(jnp.array([piece.grid]), len(piece.data)), axis=1)
        if merged:
            values = values.reshape(-1, 3, 3, 16, 16, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 6912)
            where = where[::9] // 3
        pixels[row, : len(values)], positions[row, : len(values)] = values, where
    return torch.from_numpy(pixels), torch.from_numpy(positions)


def _sounds(sounds: list[SoftInput]):
    import torch

    most = max(len(piece.data) for piece in sounds)
    frames = np.zeros((len(sounds), most, sounds[0].data.shape[1]), np.float32)
    mask = np.zeros((len(sounds), most), bool)
    for row, piece in enumerate(sounds):
        frames[row, : len(piece.data)], mask[row, : len(piece.data)] = piece.data, True
    return torch.from_numpy(frames), torch.from_numpy(mask)
