"""The reference: random tiny checkpoints in transformers, and the vectors stored from it.

python tests/parity/reference.py        writes tests/data/parity/*.npz (needs torch)
"""

import tempfile
from pathlib import Path

import numpy as np

from g4jax.testing.checkpoints import write_checkpoint
from g4jax.testing.configs import VARIANTS, Variant, tiny

STORED = Path(__file__).parents[1] / "data" / "parity"
LENGTH = 37
"""Tokens of a case: several windows of 8 and no multiple of a page or of a piece."""


def tokens(variant: Variant) -> list[int]:
    vocab = tiny(variant)["text_config"]["vocab_size"]
    return np.random.default_rng(len(variant)).integers(5, vocab - 16, LENGTH).tolist()


def write_case(folder: Path, variant: Variant) -> dict[str, np.ndarray]:
    """The checkpoint of a case, in float32; the same on every machine."""
    return write_checkpoint(folder, tiny(variant), dtype=np.float32, seed=VARIANTS.index(variant))


def reference_model(variant: Variant, tensors: dict[str, np.ndarray]):
    """transformers' model with these weights."""
    import torch
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig, Gemma4UnifiedForCausalLM, Gemma4UnifiedTextConfig

    unified = variant == "12b"
    text = {name: value for name, value in tiny(variant)["text_config"].items() if name != "model_type"}
    config = (Gemma4UnifiedTextConfig if unified else Gemma4TextConfig)(**text)
    model = (Gemma4UnifiedForCausalLM if unified else Gemma4ForCausalLM)(config).eval()
    state = {f"model.{name}": torch.from_numpy(tensor) for name, tensor in tensors.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) <= {"lm_head.weight"}, missing
    assert all(part in name for name in unexpected for part in ("self_attn",)), unexpected
    return model


def reference_logits(model, ids: list[int]) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].float().numpy()


def store() -> None:
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            model = reference_model(variant, write_case(Path(folder), variant))
        np.savez_compressed(STORED / f"{variant}.npz", logits=reference_logits(model, tokens(variant)))
        print(variant)


if __name__ == "__main__":
    store()
