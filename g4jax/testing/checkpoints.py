"""Checkpoints with random weights, written the way the releases are."""

import json
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from g4jax.config import Gemma4Config
from g4jax.weights.abstract import abstract_encoders

RELEASE_PREFIX = "model.language_model."


def write_checkpoint(
    folder: Path,
    raw: dict[str, Any],
    *,
    prefix: str = RELEASE_PREFIX,
    dtype: Any = ml_dtypes.bfloat16,
    files: int = 1,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Writes `raw` as config.json, and weights for it into so many safetensors files (with an index from two on).

    Besides the text decoder there are, as in the releases, the encoders that `raw` has, and tensors that nothing uses.
    Returns the decoder's tensors by their names without the prefix.
    """
    rng = np.random.default_rng(seed)
    shapes = tensor_shapes(raw["text_config"])
    tensors = {name: _random(rng, name, shape, raw["text_config"]).astype(dtype) for name, shape in shapes.items()}
    stored = {prefix + name: tensor for name, tensor in tensors.items()}
    stored |= {f"model.{name}": tensor.astype(dtype) for name, tensor in encoder_tensors(raw, seed).items()}
    stored |= {"model.unused_tower.weight": np.ones((4, 4), dtype)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    _save(folder, stored, files)
    return tensors


def encoder_tensors(raw: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 tensors of the encoders of a config, by their names without the prefix; bounds clip at times."""
    encoders = abstract_encoders(Gemma4Config.from_dict(raw), np.float32)
    rng = np.random.default_rng(seed + 1)
    params = () if encoders is None else encoders.params
    return {param.path: _encoder_tensor(rng, param.path, param.shape) for param in params}


def _encoder_tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.standard_normal(shape, dtype=np.float32)
    if name.endswith(("_min", "_max")):
        return np.asarray((1.5 if name.endswith("max") else -1.5) + 0.1 * values, np.float32)
    if name.endswith(("std_bias", ".bias", "per_dim_scale")):
        return 0.1 * values
    if "norm" in name or name.endswith(("std_scale", "ln1.weight", "ln2.weight")):
        return 1 + 0.1 * values
    if "pos_embedding" in name or "position_embedding_table" in name:
        return 0.5 * values
    return values * np.float32(np.prod(shape[1:]) ** -0.5)


def tensor_shapes(text: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the checkpoint of a text_config, those that KV-shared layers keep unused among them."""
    d, width, layers = text["hidden_size"], text["hidden_size_per_layer_input"], text["num_hidden_layers"]
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (text["vocab_size"], d), "norm.weight": (d,)}
    if width:
        shapes["embed_tokens_per_layer.weight"] = (text["vocab_size_per_layer_input"], layers * width)
        shapes["per_layer_model_projection.weight"] = (layers * width, d)
        shapes["per_layer_projection_norm.weight"] = (width,)
    for layer in range(layers):
        shapes |= {f"layers.{layer}.{name}": shape for name, shape in _layer_shapes(text, layer).items()}
    return shapes


def _layer_shapes(text: dict[str, Any], layer: int) -> dict[str, tuple[int, ...]]:
    d, width = text["hidden_size"], text["hidden_size_per_layer_input"]
    sliding = text["layer_types"][layer] == "sliding_attention"
    shared = layer >= text["num_hidden_layers"] - text["num_kv_shared_layers"]
    f = text["intermediate_size"] * (2 if shared and text["use_double_wide_mlp"] else 1)
    shapes: dict[str, tuple[int, ...]] = {"layer_scalar": (1,)}
    shapes |= {f"self_attn.{name}": shape for name, shape in _attention_shapes(text, sliding).items()}
    shapes |= {"mlp.gate_proj.weight": (f, d), "mlp.up_proj.weight": (f, d), "mlp.down_proj.weight": (d, f)}
    norms = ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"]
    if width:
        shapes |= {"per_layer_input_gate.weight": (width, d), "per_layer_projection.weight": (d, width)}
        norms += ["post_per_layer_input_norm"]
    if text["enable_moe_block"]:
        e, fe = text["num_experts"], text["moe_intermediate_size"]
        shapes |= {"router.proj.weight": (e, d), "router.scale": (d,), "router.per_expert_scale": (e,)}
        shapes |= {"experts.gate_up_proj": (e, 2 * fe, d), "experts.down_proj": (e, d, fe)}
        norms += ["pre_feedforward_layernorm_2", "post_feedforward_layernorm_1", "post_feedforward_layernorm_2"]
    return shapes | {f"{norm}.weight": (d,) for norm in norms}


def _attention_shapes(text: dict[str, Any], sliding: bool) -> dict[str, tuple[int, ...]]:
    d, n = text["hidden_size"], text["num_attention_heads"]
    k_eq_v = text["attention_k_eq_v"] and not sliding
    h = text["head_dim"] if sliding else text["global_head_dim"]
    k = text["num_global_key_value_heads"] if k_eq_v else text["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {"q_proj.weight": (n * h, d), "k_proj.weight": (k * h, d)}
    if not k_eq_v:
        shapes["v_proj.weight"] = (k * h, d)
    return shapes | {"o_proj.weight": (d, n * h), "q_norm.weight": (h,), "k_norm.weight": (h,)}


def _random(rng: np.random.Generator, name: str, shape: tuple[int, ...], text: dict[str, Any]) -> np.ndarray:
    """Weights with which activations stay near 1, as `g4jax.weights.dummy` has them."""
    values = rng.standard_normal(shape, dtype=np.float32)
    if re.search(r"post_\w*norm", name):
        return 0.3 + 0.03 * values
    if name.endswith("q_norm.weight"):
        return (1 + 0.1 * values) * 2 * shape[-1] ** -0.5
    if len(shape) == 1:
        return 1 + 0.1 * values
    if name.endswith("router.proj.weight"):
        return values
    fan_in = text["hidden_size_per_layer_input"] if name.startswith("embed_tokens_per_layer") else shape[-1]
    return values * fan_in**-0.5


def _save(folder: Path, tensors: dict[str, np.ndarray], files: int) -> None:
    if files == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    names = [f"model-{number + 1:05}-of-{files:05}.safetensors" for number in range(files)]
    weight_map = {tensor: names[place % files] for place, tensor in enumerate(tensors)}
    for name in names:
        save_file({tensor: tensors[tensor] for tensor in weight_map if weight_map[tensor] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
