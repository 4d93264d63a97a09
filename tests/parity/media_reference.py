"""The reference for prompts with media: random tiny checkpoints with encoders, and the vectors stored from it.

python -m tests.parity.media_reference        writes tests/data/parity/media_*.npz (needs torch)
"""

import tempfile
from pathlib import Path

import numpy as np

from g4jax.media.inputs import MediaKind, PlacedInput, SoftInput
from g4jax.testing.checkpoints import write_checkpoint
from g4jax.testing.configs import VARIANTS, Variant
from g4jax.testing.encoder_configs import tiny_with_encoders
from g4jax.testing.reference_logits import reference_logits
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


def store() -> None:
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            write_case(Path(folder), variant)
            logits = reference_logits(folder, *prompt(variant), "float32")
        np.savez_compressed(STORED / f"media_{variant}.npz", logits=logits)
        print(variant, logits.shape)


if __name__ == "__main__":
    store()
