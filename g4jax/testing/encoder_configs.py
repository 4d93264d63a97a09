"""Tiny models with eyes and ears: each kind of encoder that the releases have."""

from typing import Any

from g4jax.testing.configs import Variant, tiny

_VISION: dict[str, Any] = {
    "model_type": "gemma4_vision",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "default_output_length": 70,
    "dtype": "bfloat16",
    "global_head_dim": 16,
    "head_dim": 16,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 4096,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "patch_size": 16,
    "pooling_kernel_size": 3,
    "position_embedding_size": 64,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_theta": 100.0, "rope_type": "default"},
    "standardize": False,
    "use_clipped_linears": True,
}

_AUDIO: dict[str, Any] = {
    "model_type": "gemma4_audio",
    "attention_chunk_size": 12,
    "attention_context_left": 13,
    "attention_context_right": 0,
    "attention_invalid_logits_value": -1e9,
    "attention_logit_cap": 50.0,
    "conv_kernel_size": 5,
    "dtype": "bfloat16",
    "gradient_clipping": 1e10,
    "hidden_act": "silu",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "output_proj_dims": 24,
    "residual_weight": 0.5,
    "rms_norm_eps": 1e-6,
    "subsampling_conv_channels": [128, 4],
    "use_clipped_linears": True,
}

_LARGE_VISION = {**_VISION, "use_clipped_linears": False, "standardize": True}
_UNIFIED_VISION = {
    "model_type": "gemma4_unified_vision",
    "mm_embed_dim": 32,
    "mm_posemb_size": 32,
    "output_proj_dims": 32,
}
_UNIFIED_AUDIO = {"model_type": "gemma4_unified_audio", "audio_embed_dim": 640}


def tiny_with_encoders(variant: Variant, **changes: Any) -> dict[str, Any]:
    """The content of a config.json: `tiny(variant)` with the encoders that the release of this name has."""
    if variant == "12b":
        return tiny(variant, vision_config=_UNIFIED_VISION, audio_config=_UNIFIED_AUDIO, **changes)
    small = variant in ("e2b", "e4b")
    vision, audio = (_VISION, _AUDIO) if small else (_LARGE_VISION, None)
    return tiny(variant, vision_config=vision, audio_config=audio, **changes)
