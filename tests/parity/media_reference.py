"""The reference for prompts with media: random tiny checkpoints with encoders, and the vectors stored from it.

python -m tests.parity.media_reference        writes tests/data/parity/media_*.npz (needs torch)
"""

import tempfile
from pathlib import Path

import numpy as np

from g4jax.engine.encoder_batch import patch_places
from g4jax.media.inputs import MediaKind, PlacedInput, SoftInput
from g4jax.testing.checkpoints import write_checkpoint
from g4jax.testing.configs import VARIANTS, Variant
from g4jax.testing.encoder_configs import tiny_with_encoders
from tests.parity.reference import STORED

Prompt = tuple[list[int], tuple[PlacedInput, ...]]


def write_case(folder: Path, variant: Variant) -> None:
    """The checkpoint of a case, in float32; the same on every machine."""
    write_checkpoint(folder, tiny_with_encoders(variant), dtype=np.float32, seed=VARIANTS.index(variant))


def prompt(variant: Variant) -> Prompt:
    """Two images of different aspect, a sound where the model hears, three frames of a video, and text between them."""
    raw = tiny_with_encoders(variant)
    rng = np.random.default_rng(VARIANTS.index(variant))
    inputs = [_image(rng, "image", (2, 3)), _image(rng, "image", (4, 1))]
    if raw["audio_config"] is not None:
        inputs.append(_sound(rng, variant))
    inputs += [_image(rng, "video", (2, 2)) for _ in range(3)]
    ids, placed = rng.integers(5, 200, 5).tolist(), []
    for piece in inputs:
        opened, closed = ("boa", "eoa") if piece.kind == "audio" else ("boi", "eoi")
        placed.append(PlacedInput(len(ids) + 1, piece))
        placeholder = raw[f"{piece.kind}_token_id"]
        ids += [raw[f"{opened}_token_id"], *[placeholder] * piece.num_tokens, raw[f"{closed}_token_id"]]
        ids += rng.integers(5, 200, 3).tolist()
    return ids, tuple(placed)


def _image(rng: np.random.Generator, kind: MediaKind, grid: tuple[int, int]) -> SoftInput:
    tokens = grid[0] * grid[1]
    pixels = rng.integers(0, 256, (9 * tokens, 768)).astype(np.uint8)
    return SoftInput(kind, pixels, grid, tokens, rng.bytes(16))


def _sound(rng: np.random.Generator, variant: Variant) -> SoftInput:
    if variant == "12b":
        return SoftInput("audio", rng.standard_normal((5, 640)).astype(np.float32), (0, 0), 5, rng.bytes(16))
    frames = rng.standard_normal((70, 128)).astype(np.float32)
    return SoftInput("audio", frames, (0, 0), 18, rng.bytes(16))


def reference_logits(folder: Path, variant: Variant, case: Prompt) -> np.ndarray:
    """transformers' logits `[T, V]` with the checkpoint of `folder`."""
    import torch
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    ids, placed = case
    raw = tiny_with_encoders(variant)
    kinds = {raw[f"{kind}_token_id"]: number for number, kind in enumerate(("image", "video", "audio"), 1)}
    types = torch.tensor([[kinds.get(token, 0) for token in ids]])
    with torch.no_grad():
        inputs = _images(placed, variant) | _videos(placed, variant) | _sounds(placed)
        return model(input_ids=torch.tensor([ids]), mm_token_type_ids=types, **inputs).logits[0].numpy()


def _images(placed: tuple[PlacedInput, ...], variant: Variant) -> dict:
    pixels, places = _padded([p.input for p in placed if p.input.kind == "image"], variant)
    return {"pixel_values": pixels, "image_position_ids": places}


def _videos(placed: tuple[PlacedInput, ...], variant: Variant) -> dict:
    import torch

    frames = [p.input for p in placed if p.input.kind == "video"]
    pixels, places = _padded(frames, variant)
    return {
        "pixel_values_videos": pixels,
        "video_position_ids": places,
        "num_frames_per_video": torch.tensor([len(frames)]),
    }


def _sounds(placed: tuple[PlacedInput, ...]) -> dict:
    import torch

    sounds = [p.input.data for p in placed if p.input.kind == "audio"]
    if not sounds:
        return {}
    (frames,) = sounds
    mask = torch.ones((1, len(frames)), dtype=torch.bool)
    return {"input_features": torch.from_numpy(frames)[None], "input_features_mask": mask}


def _padded(inputs: list[SoftInput], variant: Variant):
    """Pixels and places as transformers wants them: of the 12B a token's 9 patches put together."""
    import torch

    unified = variant == "12b"
    most = max(piece.num_tokens if unified else len(piece.data) for piece in inputs)
    pixels = np.zeros((len(inputs), most, 6912 if unified else 768), np.float32)
    places = np.full((len(inputs), most, 2), -1)
    for row, piece in enumerate(inputs):
        values, where = piece.data.astype(np.float32) * np.float32(1 / 255), np.stack(patch_places(piece.grid, 9), 1)
        if unified:
            values = values.reshape(-1, 3, 3, 16, 16, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 6912)
            where = where[::9] // 3
        pixels[row, : len(values)], places[row, : len(values)] = values, where
    return torch.from_numpy(pixels), torch.from_numpy(places)


def store() -> None:
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            write_case(Path(folder), variant)
            logits = reference_logits(Path(folder), variant, prompt(variant))
        np.savez_compressed(STORED / f"media_{variant}.npz", logits=logits)
        print(variant, logits.shape)


if __name__ == "__main__":
    store()
