"""A Gemma 4 checkpoint's `config.json` as frozen data.

The architecture is a tuple of `LayerSpec`, computed once here, so that no other file asks which layer is the fifth.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from g4jax.tower_config import AnyAudio, AnyVision, audio_config, vision_config

Tower = TypeVar("Tower")
LayerKind = Literal["sliding_attention", "full_attention"]

DEFAULT_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
}

MODEL_TYPES = ("gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text")


class ConfigError(ValueError):
    """A checkpoint's config.json that cannot be served; the message names the field."""


@dataclasses.dataclass(frozen=True)
class RopeSpec:
    """Rotary embedding of one layer: pairs (i, i + head_dim/2) turn for i < `rotated_pairs`, the others stand still."""

    theta: float
    head_dim: int
    rotated_pairs: int


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    """What one decoder layer is.

    `window` counts the keys a query sees including itself (None: all of them). `kv_source` is the layer whose keys and
    values this one attends to: its own index, or, in a KV-shared layer, the last owning layer of the same kind.
    `k_eq_v`: the values are the raw key projection, so there is no v_proj. `sees_both_ways`: the tokens of an image
    attend to all of it, not only to what is before them.
    """

    index: int
    kind: LayerKind
    window: int | None
    head_dim: int
    num_kv_heads: int
    k_eq_v: bool
    kv_source: int
    intermediate_size: int
    rope: RopeSpec
    sees_both_ways: bool

    @property
    def owns_kv(self) -> bool:
        return self.kv_source == self.index

    @property
    def is_sliding(self) -> bool:
        return self.kind == "sliding_attention"


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The text decoder. `num_experts` and `hidden_size_per_layer_input` are 0 where the model has none."""

    vocab_size: int
    hidden_size: int
    num_attention_heads: int
    layers: tuple[LayerSpec, ...]
    rms_norm_eps: float
    final_logit_softcapping: float | None
    hidden_size_per_layer_input: int
    vocab_size_per_layer_input: int
    num_experts: int
    top_k_experts: int
    moe_intermediate_size: int
    sliding_window: int
    max_position_embeddings: int
    pad_token_id: int

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def sees_both_ways(self) -> bool:
        """In some layers; see `LayerSpec`."""
        return any(spec.sees_both_ways for spec in self.layers)

    @property
    def first_shared(self) -> int:
        """Index of the first KV-shared layer; the number of layers where there is none."""
        return next((spec.index for spec in self.layers if not spec.owns_kv), self.num_layers)


@dataclasses.dataclass(frozen=True)
class Gemma4Config:
    """A whole checkpoint: the text decoder, its eyes and ears, and the ids that the runtime must know."""

    text: TextConfig
    vision: AnyVision | None
    audio: AnyAudio | None
    bos_token_id: int
    eos_token_ids: tuple[int, ...]
    image_token_id: int | None
    audio_token_id: int | None
    video_token_id: int | None
    dtype: str

    @classmethod
    def from_folder(cls, folder: str | Path) -> "Gemma4Config":
        """Reads `folder/config.json`.

        Raises:
            ConfigError: no such file, not JSON, or not a Gemma 4 architecture.
        """
        path = Path(folder) / "config.json"
        try:
            raw = json.loads(path.read_text())
        except FileNotFoundError:
            raise ConfigError(f"{path} does not exist: --model must name a Gemma 4 checkpoint folder") from None
        except ValueError as error:
            raise ConfigError(f"{path} is not JSON: {error}") from None
        return cls.from_dict(raw)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "Gemma4Config":
        """Reads the content of a config.json, of a whole release or of its text part alone."""
        model_type = raw.get("model_type")
        if model_type not in MODEL_TYPES:
            raise ConfigError(f"model_type is {model_type!r}: this server runs Gemma 4 ({', '.join(MODEL_TYPES)})")
        text = raw.get("text_config", raw)
        eos = raw.get("eos_token_id", text.get("eos_token_id", 1))
        return cls(
            text=_text_config(text),
            vision=_tower(raw, "vision_config", vision_config),
            audio=_tower(raw, "audio_config", audio_config),
            bos_token_id=text.get("bos_token_id", 2),
            eos_token_ids=tuple(eos) if isinstance(eos, list) else (eos,),
            image_token_id=raw.get("image_token_id"),
            audio_token_id=raw.get("audio_token_id"),
            video_token_id=raw.get("video_token_id"),
            dtype=raw.get("dtype") or text.get("dtype") or "bfloat16",
        )


def _tower(raw: dict[str, Any], name: str, read: Callable[[dict[str, Any] | None], Tower]) -> Tower:
    try:
        return read(raw.get(name))
    except KeyError as error:
        raise ConfigError(f"{name} lacks {error}: is this a Gemma 4 config.json?") from None
    except ValueError as error:
        raise ConfigError(f"{name}.{error}") from None


def _text_config(raw: dict[str, Any]) -> TextConfig:
    _require(raw)
    moe = bool(raw.get("enable_moe_block"))
    return TextConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        num_attention_heads=raw["num_attention_heads"],
        layers=layer_specs(raw),
        rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
        final_logit_softcapping=raw.get("final_logit_softcapping"),
        hidden_size_per_layer_input=raw.get("hidden_size_per_layer_input") or 0,
        vocab_size_per_layer_input=raw.get("vocab_size_per_layer_input") or raw["vocab_size"],
        num_experts=_of_experts(raw, "num_experts") if moe else 0,
        top_k_experts=_of_experts(raw, "top_k_experts") if moe else 0,
        moe_intermediate_size=_of_experts(raw, "moe_intermediate_size") if moe else 0,
        sliding_window=raw["sliding_window"],
        max_position_embeddings=raw["max_position_embeddings"],
        pad_token_id=raw.get("pad_token_id") or 0,
    )


def _of_experts(raw: dict[str, Any], name: str) -> int:
    if raw.get(name) is None:
        raise ConfigError(f"text_config.{name} is missing, though enable_moe_block is true")
    return raw[name]


def _require(raw: dict[str, Any]) -> None:
    needed = (
        "vocab_size hidden_size num_attention_heads num_hidden_layers num_key_value_heads head_dim intermediate_size "
        "layer_types sliding_window max_position_embeddings"
    ).split()
    missing = [name for name in needed if raw.get(name) is None]
    if missing:
        raise ConfigError(f"text_config lacks {', '.join(missing)}: is this a Gemma 4 config.json?")
    if len(raw["layer_types"]) != raw["num_hidden_layers"]:
        raise ConfigError(
            f"layer_types has {len(raw['layer_types'])} entries, num_hidden_layers is {raw['num_hidden_layers']}"
        )
    fixed = {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False, "tie_word_embeddings": True}
    for name, value in fixed.items():
        if raw.get(name, value) != value:
            raise ConfigError(f"text_config.{name} is {raw[name]!r}: Gemma 4 has {value!r}")


def layer_specs(raw: dict[str, Any]) -> tuple[LayerSpec, ...]:
    """The layers of a text config: heads, windows, widths and whose keys each one reads."""
    kinds: list[LayerKind] = raw["layer_types"]
    first_shared = len(kinds) - (raw.get("num_kv_shared_layers") or 0)
    return tuple(_layer_spec(raw, index, kind, first_shared) for index, kind in enumerate(kinds))


def _layer_spec(raw: dict[str, Any], index: int, kind: LayerKind, first_shared: int) -> LayerSpec:
    sliding = kind == "sliding_attention"
    shared = index >= first_shared
    own = raw | _layer_overrides(raw, index, sliding)
    double_wide = shared and raw.get("use_double_wide_mlp")
    return LayerSpec(
        index=index,
        kind=kind,
        window=raw["sliding_window"] if sliding else None,
        head_dim=own["head_dim"],
        num_kv_heads=own["num_key_value_heads"],
        k_eq_v=bool(raw.get("attention_k_eq_v")) and not sliding,
        kv_source=_producer(raw["layer_types"], kind, first_shared) if shared else index,
        intermediate_size=own["intermediate_size"] * (2 if double_wide else 1),
        rope=_rope_spec(raw, kind, own["head_dim"]),
        sees_both_ways=_sees_both_ways(raw, sliding),
    )


def _sees_both_ways(raw: dict[str, Any], sliding: bool) -> bool:
    """Sliding layers alone in the models with a vision tower; in the 12B, which has none, all layers."""
    everywhere = raw.get("model_type") == "gemma4_unified_text"
    return raw.get("use_bidirectional_attention") == "vision" and (sliding or everywhere)


def _layer_overrides(raw: dict[str, Any], index: int, sliding: bool) -> dict[str, Any]:
    """What differs in one layer. The releases say it by `global_*` fields, newer versions of transformers write
    `per_layer_config` instead, layer by layer."""
    if raw.get("per_layer_config") is not None:
        return raw["per_layer_config"].get(str(index), {})
    if sliding:
        return {}
    heads = raw.get("num_global_key_value_heads") if raw.get("attention_k_eq_v") else None
    return {"head_dim": raw.get("global_head_dim", 512)} | ({"num_key_value_heads": heads} if heads else {})


def _producer(kinds: list[LayerKind], kind: LayerKind, first_shared: int) -> int:
    owners = [index for index in range(first_shared) if kinds[index] == kind]
    if not owners:
        raise ConfigError(f"num_kv_shared_layers leaves no {kind} layer that has keys of its own")
    return owners[-1]


def _rope_spec(raw: dict[str, Any], kind: LayerKind, head_dim: int) -> RopeSpec:
    rope = (raw.get("rope_parameters") or DEFAULT_ROPE).get(kind)
    if rope is None:
        raise ConfigError(f"text_config.rope_parameters lacks {kind}")
    partial = rope.get("partial_rotary_factor", 1.0) if rope.get("rope_type") == "proportional" else 1.0
    return RopeSpec(theta=rope["rope_theta"], head_dim=head_dim, rotated_pairs=int(partial * head_dim // 2))
