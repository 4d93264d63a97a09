"""What a checkpoint's config.json says of its eyes and ears, as frozen data."""

import dataclasses
from typing import Any

PATCH = 16
POOLING = 3
"""An image's side is cut into patches of 16 pixels, and 3 x 3 patches make one soft token, in every release."""

MEL_BINS = 128
"""Of the log-mel frames that audio towers hear."""


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """A vision tower. `clipped`: its linear layers clamp what goes in and out; `standardize`: its output is shifted
    and scaled. `position_embedding_size`: most patches on a side of an image."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    head_dim: int
    position_embedding_size: int
    rope_theta: float
    rms_norm_eps: float
    clipped: bool
    standardize: bool

    @property
    def output_dims(self) -> int:
        return self.hidden_size

    @property
    def most_cells(self) -> int:
        """Most soft tokens on a side of an image."""
        return self.position_embedding_size // POOLING


@dataclasses.dataclass(frozen=True)
class VisionEmbedderConfig:
    """Images without a tower (the 12B): 48 x 48 pixels are projected at once."""

    hidden_size: int
    position_embedding_size: int
    rms_norm_eps: float

    @property
    def output_dims(self) -> int:
        return self.hidden_size

    @property
    def most_cells(self) -> int:
        """As of `VisionConfig`."""
        return self.position_embedding_size


@dataclasses.dataclass(frozen=True)
class AudioConfig:
    """An audio tower: a conformer over log-mel frames. A frame attends to the `context` frames that end with it."""

    hidden_size: int
    num_layers: int
    num_heads: int
    subsampling_channels: tuple[int, int]
    conv_kernel_size: int
    context: int
    logit_cap: float
    invalid_logit: float
    residual_weight: float
    output_dims: int
    rms_norm_eps: float
    clipped: bool

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads


@dataclasses.dataclass(frozen=True)
class AudioEmbedderConfig:
    """Sound without a tower (the 12B): `samples_per_token` samples of a 16 kHz waveform are projected at once."""

    samples_per_token: int
    rms_norm_eps: float

    @property
    def output_dims(self) -> int:
        return self.samples_per_token


AnyVision = VisionConfig | VisionEmbedderConfig
AnyAudio = AudioConfig | AudioEmbedderConfig


def vision_config(raw: dict[str, Any] | None) -> AnyVision | None:
    """Of the vision_config in a config.json; None where there is none.

    Raises:
        KeyError: a field is missing.
        ValueError: a field has a value that no Gemma 4 has.
    """
    if raw is None:
        return None
    _fixed(raw, patch_size=PATCH, pooling_kernel_size=POOLING)
    eps = raw.get("rms_norm_eps", 1e-6)
    if raw.get("model_type") == "gemma4_unified_vision":
        return VisionEmbedderConfig(raw["mm_embed_dim"], raw["mm_posemb_size"], eps)
    _fixed(raw, hidden_activation="gelu_pytorch_tanh", attention_bias=False)
    _fixed(raw, num_key_value_heads=raw["num_attention_heads"])
    return VisionConfig(
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=raw["num_attention_heads"],
        head_dim=raw["head_dim"],
        position_embedding_size=raw["position_embedding_size"],
        rope_theta=(raw.get("rope_parameters") or {}).get("rope_theta", 100.0),
        rms_norm_eps=eps,
        clipped=bool(raw.get("use_clipped_linears")),
        standardize=bool(raw.get("standardize")),
    )


def audio_config(raw: dict[str, Any] | None) -> AnyAudio | None:
    """As `vision_config`, of the audio_config."""
    if raw is None:
        return None
    eps = raw.get("rms_norm_eps", 1e-6)
    if raw.get("model_type") == "gemma4_unified_audio":
        return AudioEmbedderConfig(raw["audio_embed_dim"], eps)
    # The reference places its keys by these three; others than the releases' would mean other distances.
    _fixed(raw, hidden_act="silu", attention_context_right=0, attention_chunk_size=raw["attention_context_left"] - 1)
    return AudioConfig(
        hidden_size=raw["hidden_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=raw["num_attention_heads"],
        subsampling_channels=tuple(raw["subsampling_conv_channels"]),
        conv_kernel_size=raw["conv_kernel_size"],
        # The reference counts the query among its left context and excludes the farthest.
        context=raw["attention_context_left"] - 1,
        logit_cap=raw["attention_logit_cap"],
        invalid_logit=raw["attention_invalid_logits_value"],
        residual_weight=raw["residual_weight"],
        output_dims=raw["output_proj_dims"],
        rms_norm_eps=eps,
        clipped=bool(raw.get("use_clipped_linears")),
    )


def _fixed(raw: dict[str, Any], **values: Any) -> None:
    for name, value in values.items():
        if raw.get(name, value) != value:
            raise ValueError(f"{name} is {raw[name]!r}: Gemma 4 has {value!r}")
