import json

import pytest

from g4jax.config import Gemma4Config
from g4jax.engine.capacity import EARLY_LAYERS, early_layers
from g4jax.testing.configs import tiny
from scripts.inspect_step import CONFIGS


@pytest.mark.parametrize("name", ["e2b", "e4b", "31b", "26b-a4b"])
@pytest.mark.parametrize("is_tiny", [True, False])
def test_later_layers_read_no_keys_of_early_ones(name: str, is_tiny: bool):
    raw = tiny(name) if is_tiny else json.loads((CONFIGS / f"{name}.json").read_text())
    config = Gemma4Config.from_dict(raw).text
    early = early_layers(config)
    assert early.layers == EARLY_LAYERS if not is_tiny else early.layers <= EARLY_LAYERS
    assert all(spec.kv_source >= early.layers for spec in config.layers[early.layers :])
    assert early.layers < config.first_shared  # the last that keeps keys computes some rows only
    assert (early.hidden, early.per_layer > 0) == (config.hidden_size, config.hidden_size_per_layer_input > 0)
