"""The shape of nano: a few million parameters with every feature of the family switched on."""

from typing import Any

from g4jax.chat.tokenizer import SPELLINGS
from scripts.nano.tokenizer import CONTROL, VOCAB_SIZE

PATTERN = ["sliding_attention", "full_attention"]


IMAGE_TOKENS = 70
"""Most soft tokens of a picture, and of a frame of a video: the smallest budget of the family."""

VIDEO_FRAMES = 4


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


def vision_config() -> dict[str, Any]:
    """vision_config of config.json."""
    return {
        "model_type": "gemma4_vision",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "default_output_length": IMAGE_TOKENS,
        "dtype": "bfloat16",
        "global_head_dim": 32,
        "head_dim": 32,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 160,
        "initializer_range": 0.02,
        "intermediate_size": 512,
        "max_position_embeddings": 4096,
        "num_attention_heads": 5,
        "num_hidden_layers": 4,
        "num_key_value_heads": 5,
        "patch_size": 16,
        "pooling_kernel_size": 3,
        "position_embedding_size": 512,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 100.0, "rope_type": "default"},
        "standardize": False,
        "use_clipped_linears": True,
    }


def audio_config() -> dict[str, Any]:
    """audio_config of config.json."""
    return {
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
        "hidden_size": 128,
        "initializer_range": 0.02,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "output_proj_dims": 160,
        "residual_weight": 0.5,
        "rms_norm_eps": 1e-6,
        "subsampling_conv_channels": [128, 16],
        "use_clipped_linears": True,
    }


def processor_config() -> dict[str, Any]:
    """processor_config.json: what pictures, videos and sounds become."""
    resized = {"do_rescale": True, "do_resize": True, "patch_size": 16, "pooling_kernel_size": 3}
    return {
        "processor_class": "Gemma4Processor",
        "image_seq_length": IMAGE_TOKENS,
        "audio_seq_length": 750,
        "audio_ms_per_token": 40,
        "image_processor": {
            "image_processor_type": "Gemma4ImageProcessor",
            "max_soft_tokens": IMAGE_TOKENS,
            **resized,
        },
        "video_processor": {
            "video_processor_type": "Gemma4VideoProcessor",
            "max_soft_tokens": IMAGE_TOKENS,
            "num_frames": VIDEO_FRAMES,
            **resized,
        },
        "feature_extractor": {
            "feature_extractor_type": "Gemma4AudioFeatureExtractor",
            "feature_size": 128,
            "sampling_rate": 16000,
        },
    }


def config() -> dict[str, Any]:
    """config.json."""
    return {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "model_type": "gemma4",
        "dtype": "bfloat16",
        "audio_config": audio_config(),
        "vision_config": vision_config(),
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
        "vision_soft_tokens_per_image": IMAGE_TOKENS,
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
