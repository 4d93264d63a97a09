"""Writes nano as an ordinary Hugging Face folder."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

from g4jax.chat.template import shipped_source
from g4jax.config import Gemma4Config, LayerSpec, TextConfig
from scripts.nano import shape
from scripts.nano.encoders import PARTS
from scripts.nano.tokenizer import configuration

PREFIX = "model.language_model."


def write(folder: Path, params: Mapping[str, np.ndarray]) -> None:
    """Weights (named as in the text model and the encoders, float32), configs and template. The tokenizer is there
    already."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.asarray(x.astype(ml_dtypes.bfloat16), order="C") for name, x in checkpoint(params)}
    data = safetensors.numpy.save(tensors, metadata={"format": "pt"})
    (folder / "model.safetensors").write_bytes(data)
    (folder / "chat_template.jinja").write_text(shipped_source("small"))
    for name, content in (
        ("config", shape.config()),
        ("generation_config", shape.generation_config()),
        ("processor_config", shape.processor_config()),
        ("tokenizer_config", configuration()),
    ):
        write_json(folder / f"{name}.json", content)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def checkpoint(params: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors under the checkpoint's names, fused projections taken apart."""
    text = {name: value for name, value in params.items() if not name.startswith(PARTS)}
    yield from ((PREFIX + name, value) for name, value in _text(text))
    yield from (("model." + name, value) for name, value in params.items() if name.startswith(PARTS))


def _text(params: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    config = Gemma4Config.from_dict(shape.config()).text
    for name, value in params.items():
        if name.endswith("self_attn.qkv_proj.weight"):
            spec = config.layers[int(name.split(".")[1])]
            yield from _named(name, "qkv_proj", _attention_parts(value, config, spec))
        elif name.endswith("mlp.gate_up_proj.weight"):
            yield from _named(
                name, "gate_up_proj", dict(zip(("gate_proj", "up_proj"), np.split(value, 2), strict=True))
            )
        else:
            yield _checkpoint_name(name), value


def _attention_parts(value: np.ndarray, config: TextConfig, spec: LayerSpec) -> dict[str, np.ndarray]:
    heads, kv = config.num_attention_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    names = ["q_proj", "k_proj", "v_proj"][: 1 if not spec.owns_kv else 2 if spec.k_eq_v else 3]
    return dict(zip(names, np.split(value, [heads, heads + kv][: len(names) - 1]), strict=True))


def _named(name: str, fused: str, parts: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    for part, value in parts.items():
        yield name.replace(fused, part), value


def _checkpoint_name(name: str) -> str:
    name = name.replace(".sparse.", ".").replace(".per_layer.", ".").removeprefix("per_layer_inputs.")
    return f"{name}.weight" if name == "embed_tokens_per_layer" else name
