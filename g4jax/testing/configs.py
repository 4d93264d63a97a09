"""Tiny models that have everything the releases have: each kind of layer, of sharing, and of projection."""

from itertools import cycle, islice
from typing import Any, Literal

Variant = Literal["e2b", "e4b", "12b", "26b-a4b", "31b"]
VARIANTS: tuple[Variant, ...] = ("e2b", "e4b", "12b", "26b-a4b", "31b")

_PATTERN = ("sliding_attention", "sliding_attention", "full_attention")

_TOP: dict[str, Any] = {
    "architectures": ["Gemma4ForConditionalGeneration"],
    "model_type": "gemma4",
    "dtype": "bfloat16",
    "eos_token_id": [1, 106],
    "boi_token_id": 240,
    "boa_token_id": 241,
    "image_token_id": 250,
    "audio_token_id": 251,
    "eoi_token_id": 252,
    "eoa_token_id": 253,
    "video_token_id": 254,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "vision_config": None,
    "audio_config": None,
}

_TEXT: dict[str, Any] = {
    "model_type": "gemma4_text",
    "dtype": "bfloat16",
    "vocab_size": 256,
    "vocab_size_per_layer_input": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_global_key_value_heads": None,
    "num_kv_shared_layers": 0,
    "head_dim": 16,
    "global_head_dim": 32,
    "hidden_size_per_layer_input": 0,
    "sliding_window": 8,
    "max_position_embeddings": 4096,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attention_k_eq_v": False,
    "use_bidirectional_attention": None,
    "use_double_wide_mlp": False,
    "enable_moe_block": False,
    "num_experts": None,
    "top_k_experts": None,
    "moe_intermediate_size": None,
    "final_logit_softcapping": 30.0,
    "hidden_activation": "gelu_pytorch_tanh",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
        "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
    },
    "tie_word_embeddings": True,
    "use_cache": True,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}

_SMALL = {"hidden_size_per_layer_input": 16, "num_kv_shared_layers": 3}
_LARGE = {"attention_k_eq_v": True, "num_global_key_value_heads": 1, "use_bidirectional_attention": "vision"}

_VARIANT: dict[Variant, dict[str, Any]] = {
    "e2b": {**_SMALL, "num_key_value_heads": 1, "use_double_wide_mlp": True},
    "e4b": {**_SMALL, "num_key_value_heads": 2},
    "12b": {**_LARGE, "model_type": "gemma4_unified_text"},
    "26b-a4b": {
        **_LARGE,
        "num_global_key_value_heads": 2,
        "enable_moe_block": True,
        "num_experts": 8,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
    },
    "31b": _LARGE,
}


def tiny(variant: Variant, **changes: Any) -> dict[str, Any]:
    """The content of a config.json: `variant` with two runs of (sliding, sliding, full) and eight query heads.

    The second run of e2b and e4b is KV-shared. `changes` replace fields of `text_config`, or of the whole where only
    that has them; a new `num_hidden_layers` repeats the pattern.
    """
    text = {**_TEXT, **_VARIANT[variant]}
    text |= {name: value for name, value in changes.items() if name in (*_TEXT, "layer_types")}
    if "layer_types" not in changes:
        text["layer_types"] = list(islice(cycle(_PATTERN), text["num_hidden_layers"]))
    top = {**_TOP, **{name: value for name, value in changes.items() if name in _TOP and name not in _TEXT}}
    unknown = set(changes) - {*_TEXT, *_TOP, "layer_types"}
    if unknown:
        raise ValueError(f"no such field of a config.json: {', '.join(sorted(unknown))}")
    if variant == "12b":
        top |= {"model_type": "gemma4_unified", "architectures": ["Gemma4UnifiedForConditionalGeneration"]}
    return {**top, "text_config": text}
