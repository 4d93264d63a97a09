"""The shape of nano: a few million parameters with every feature of the family switched on."""

from typing import Any

from g4jax.chat.tokenizer import SPELLINGS
from scripts.nano.tokenizer import CONTROL, VOCAB_SIZE

PATTERN = ["sliding_attention", "full_attention"]


def control_id(name: str) -> int:
    """Id of a control token by its name in `SPELLINGS`."""
    return CONTROL.index(SPELLINGS[name])


def text_config() -> dict[str, Any]:
    """text_config of config.json."""
    return {
        "model_type": "gemma4_text",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attention_k_eq_v": True,
        "bos_token_id": control_id("bos"),
        "dtype": "bfloat16",
        "enable_moe_block": True,
        "eos_token_id": control_id("eos"),
        "final_logit_softcapping": 30.0,
        "global_head_dim": 64,
        "head_dim": 32,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 192,
        "hidden_size_per_layer_input": 16,
        "initializer_range": 0.02,
        "intermediate_size": 256,
        "layer_types": PATTERN * 4,
        "max_position_embeddings": 4096,
        "moe_intermediate_size": 16,
        "num_attention_heads": 8,
        "num_experts": 8,
        "num_global_key_value_heads": 2,
        "num_hidden_layers": 8,
        "num_key_value_heads": 4,
        "num_kv_shared_layers": 4,
        "pad_token_id": control_id("pad"),
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1e6, "rope_type": "proportional"},
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        },
        "sliding_window": 64,
        "tie_word_embeddings": True,
        "top_k_experts": 2,
        "use_bidirectional_attention": None,
        "use_cache": True,
        "use_double_wide_mlp": True,
        "vocab_size": VOCAB_SIZE,
        "vocab_size_per_layer_input": VOCAB_SIZE,
    }


def config() -> dict[str, Any]:
    """config.json."""
    return {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "model_type": "gemma4",
        "dtype": "bfloat16",
        "audio_config": None,
        "vision_config": None,
        "audio_token_id": control_id("audio"),
        "boa_token_id": control_id("audio_open"),
        "eoa_token_id": control_id("audio_close"),
        "boi_token_id": control_id("image_open"),
        "eoi_token_id": control_id("image_close"),
        "image_token_id": control_id("image"),
        "video_token_id": control_id("video"),
        "eos_token_id": [control_id("eos"), control_id("turn_close")],
        "initializer_range": 0.02,
        "text_config": text_config(),
        "tie_word_embeddings": True,
        "vision_soft_tokens_per_image": 280,
    }


def generation_config() -> dict[str, Any]:
    """generation_config.json. The stop tokens hold the tool response, as in the releases."""
    return {
        "bos_token_id": control_id("bos"),
        "do_sample": True,
        "eos_token_id": [control_id("eos"), control_id("turn_close"), control_id("response_open")],
        "pad_token_id": control_id("pad"),
        "temperature": 1.0,
        "top_k": 64,
        "top_p": 0.95,
    }
