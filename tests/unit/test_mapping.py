"""The table of names: every parameter of every variant from tensors that the release has, fused rows in place."""

import json
from pathlib import Path

import numpy as np
import pytest

from g4jax.config import Gemma4Config, TextConfig
from g4jax.testing.checkpoints import tensor_shapes
from g4jax.testing.configs import VARIANTS, tiny
from g4jax.weights.abstract import abstract_model
from g4jax.weights.mapping import Recipe, find_prefix, recipe, unknown_names

CONFIGS = Path(__file__).parents[2] / "g4jax" / "assets" / "configs"
TEXT_PARAMETERS = {"e2b": 4_628_569_379, "e4b": 7_463_013_418, "31b": 30_697_345_340, "26b-a4b": 25_233_141_790}


def _config(variant: str) -> TextConfig:
    return Gemma4Config.from_dict(tiny(variant)).text


def _recipes(config: TextConfig, tp: int) -> dict[str, Recipe]:
    return {param.path: recipe(param, config, tp) for param in abstract_model(config, "bfloat16", tp).params}


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_and_shapes_are_those_of_the_release(variant):
    raw = tiny(variant)
    needed = {name: shape for made in _recipes(_config(variant), 1).values() for name, shape in made.shapes.items()}
    stored = tensor_shapes(raw["text_config"])
    assert needed == {name: stored[name] for name in needed}
    unread = stored.keys() - needed.keys()
    assert unknown_names(unread, _config(variant)) == []
    shared = raw["text_config"]["num_kv_shared_layers"]
    assert len(unread) == 3 * shared, "k_proj, v_proj and k_norm of the KV-shared layers, nothing else"


@pytest.mark.parametrize("variant", TEXT_PARAMETERS)
def test_parameter_counts_of_the_releases(variant):
    path = CONFIGS / f"{variant}.json"
    if not path.is_file():
        pytest.skip("the releases' configs are not bundled")
    config = Gemma4Config.from_dict(json.loads(path.read_text())).text
    shapes = {name: shape for made in _recipes(config, 1).values() for name, shape in made.shapes.items()}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == TEXT_PARAMETERS[variant]


def test_qkv_rows_of_each_device_and_copies_of_few_key_heads():
    # 12b: full layers (index 2) have 8 query heads of 32, one key head, and no v_proj.
    made = _recipes(_config("12b"), 4)["layers.2.self_attn.qkv_proj.weight"]
    rows = [(piece.name.split(".")[-2], piece.start, piece.stop) for piece in made.segments]
    assert rows[:4] == [("q_proj", 0, 64), ("k_proj", 0, 32), ("q_proj", 64, 128), ("k_proj", 0, 32)]
    # sliding layers have four key heads of 16: at tp=8 devices 2 and 3 both hold head 1.
    made = _recipes(_config("12b"), 8)["layers.0.self_attn.qkv_proj.weight"]
    assert [piece.start for piece in made.segments if piece.name.endswith("v_proj.weight")] == [
        0, 0, 16, 16, 32, 32, 48, 48,
    ]  # fmt: skip


def test_pieces_cut_segments_at_any_row():
    made = _recipes(_config("26b-a4b"), 2)["layers.0.mlp.gate_up_proj.weight"]
    whole = [(piece.name, row) for piece in made.segments for row in range(piece.start, piece.stop)]
    for begin, end in ((0, len(whole)), (1, 2), (40, 60), (47, 145), (96, 192)):
        cut = [(p.name, row) for p in made.pieces(slice(begin, end)) for row in range(p.start, p.stop)]
        assert cut == whole[begin:end]


def test_prefixes():
    assert find_prefix(["model.language_model.embed_tokens.weight", "model.norm.weight"]) == "model.language_model."
    assert find_prefix(["lm_head.weight", "model.embed_tokens.weight"]) == "model."
    assert find_prefix(["model.vision_tower.x"]) is None


def test_layers_of_another_model_are_unknown():
    names = ["layers.6.mlp.up_proj.weight", "layers.0.self_attn.q_proj.bias", "layers.3.self_attn.k_proj.weight", "x"]
    assert unknown_names(names, _config("e2b")) == names[:2]
    assert unknown_names(names, _config("31b")) == names[:3], "no shared layers: an unread k_proj would be a mistake"
