import json

import pytest

from g4jax.config import Gemma4Config
from g4jax.engine.capacity import EARLY_LAYERS, GIB, Device, early_layers, plan_capacity
from g4jax.engine.options import EngineOptions
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


@pytest.mark.parametrize(
    ("max_batch", "rows"),
    [(1, (1,)), (5, (1, 5)), (100, (1, 8, 16, 32, 64, 104)), (128, (1, 8, 16, 32, 64, 104, 128)), (250, (128, 256))],
)
def test_large_decode_batches_are_multiples_of_eight(max_batch: int, rows: tuple[int, ...]):
    config = Gemma4Config.from_dict(json.loads((CONFIGS / "e2b.json").read_text())).text
    options = EngineOptions("model", max_batch=max_batch, max_model_len=2048)
    capacity = plan_capacity(config, options, Device(140 * GIB), weight_bytes=10 * GIB, itemsize=2, tp=1)
    assert capacity.shapes.decode_rows[-len(rows) :] == rows
    assert capacity.max_batch == max_batch
