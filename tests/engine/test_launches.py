"""What one decoded token launches on an H200, read from the compiler: no GPU needed."""

import json

import pytest

from g4jax.config import Gemma4Config
from scripts.inspect_step import CONFIGS, cache_copies, inspect_decode, inspect_encoder

pytest.importorskip("jax_plugins.xla_cuda13")


@pytest.mark.parametrize(("name", "most"), [("e2b", 350), ("26b-a4b", 420)])
def test_a_token_takes_few_launches_and_copies_nothing(name, most):
    config = Gemma4Config.from_dict(json.loads((CONFIGS / f"{name}.json").read_text()))
    figures, kernels = inspect_decode(config.text, batch=1)
    assert 5 * config.text.num_layers < figures["launches_per_token"] <= most, kernels
    assert figures["cache_copies"] == figures["weight_sized_temporaries"] == 0


def test_prompts_beside_a_decode_batch_copy_no_cache():
    config = Gemma4Config.from_dict(json.loads((CONFIGS / "e2b.json").read_text()))
    assert cache_copies(config.text, ("mixed", 64, "greedy"), batch=32) == 0


@pytest.mark.parametrize(("name", "key", "most"), [("e2b", ("see", 280, 2), 300), ("e2b", ("hear", 128), 420)])
def test_an_encoder_copies_nothing_of_the_store(name, key, most):
    config = Gemma4Config.from_dict(json.loads((CONFIGS / f"{name}.json").read_text()))
    launches, copies = inspect_encoder(config, key)
    assert 100 < launches <= most and copies == 0
