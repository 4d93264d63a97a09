"""The audio tower's reference: random weights in transformers, and the tokens stored from it.

python -m tests.parity.audio_reference        writes tests/data/parity/audio_*.npz (needs torch)
"""

import numpy as np

from tests.parity.reference import STORED

CASES = ("clipped", "plain")
FRAMES = 164
LENGTHS = (164, 149, 30, 3)
"""Valid frames of the runs of a case: all of them, an odd number, a few more than one band of tokens, one token."""


def raw_config(case: str) -> dict:
    """An audio_config as in a config.json."""
    return {
        "model_type": "gemma4_audio",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_act": "silu",
        "subsampling_conv_channels": [128, 8],
        "conv_kernel_size": 5,
        "residual_weight": 0.5,
        "attention_chunk_size": 12,
        "attention_context_left": 13,
        "attention_context_right": 0,
        "attention_logit_cap": 5.0,
        "attention_invalid_logits_value": -1.0e9,
        "use_clipped_linears": case == "clipped",
        "rms_norm_eps": 1e-6,
        "gradient_clipping": 1e10,
        "output_proj_dims": 48,
    }


def frames() -> np.ndarray:
    """Log-mel frames, drifting as those of speech do, and not zero beyond any length."""
    steps = np.random.default_rng(5).standard_normal((FRAMES, 128), dtype=np.float32)
    return -3 + 0.5 * np.cumsum(steps, axis=0)


def tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights with which activations stay near 1; bounds that cut off some of them."""
    rng = np.random.default_rng(7)
    return {name: _random(rng, name, shapes[name]) for name in sorted(shapes)}


def _random(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.standard_normal(shape, dtype=np.float32)
    if name.endswith(("_min", "_max")):
        bound = 1 + 0.3 * abs(values)
        return np.asarray(-bound if name.endswith("_min") else bound, np.float32)
    if name.endswith(("per_dim_scale", "bias")):
        return values
    if len(shape) == 1:
        return 1 + 0.1 * values
    return values * np.prod(shape[1:]).astype(np.float32) ** -0.5


def reference_model(case: str):
    """transformers' tower with these weights."""
    import torch
    from transformers import Gemma4AudioConfig
    from transformers.models.gemma4.modeling_gemma4 import Gemma4AudioModel

    model = Gemma4AudioModel(Gemma4AudioConfig(**raw_config(case))).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors(shapes).items()})
    return model


def reference_tokens(model, length: int) -> np.ndarray:
    """The soft tokens of the first `length` frames."""
    import torch

    with torch.no_grad():
        out = model(torch.from_numpy(frames())[None], attention_mask=torch.arange(FRAMES)[None] < length)
    return out.last_hidden_state[out.attention_mask].numpy()


def store() -> None:
    for case in CASES:
        model = reference_model(case)
        runs = {str(length): reference_tokens(model, length) for length in LENGTHS}
        np.savez_compressed(STORED / f"audio_{case}.npz", **runs)
        print(case, {length: tokens.shape for length, tokens in runs.items()})


if __name__ == "__main__":
    store()
