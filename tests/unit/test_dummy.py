"""Random weights: their moments, that they are the same again, and that a deep model keeps ordinary activations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from g4jax.config import Gemma4Config, TextConfig
from g4jax.nn.attention import DenseKeys
from g4jax.nn.moe import Router
from g4jax.sharding import make_mesh
from g4jax.testing.configs import tiny
from g4jax.testing.encoder_configs import tiny_with_encoders
from g4jax.weights.abstract import abstract_encoders, abstract_model
from g4jax.weights.dummy import dummy, dummy_encoders
from pallas_kernels.norm import Residual, add_rms_norm


def _config(variant: str, **changes) -> TextConfig:
    return Gemma4Config.from_dict(tiny(variant, **changes)).text


def _by_path(config: TextConfig, tp: int, seed: int = 0) -> dict[str, jax.Array]:
    leaves = dummy(config, make_mesh(tp), jnp.bfloat16, seed)
    return {
        param.path: leaf for param, leaf in zip(abstract_model(config, jnp.bfloat16, tp).params, leaves, strict=True)
    }


def test_moments():
    weights = _by_path(_config("e2b", hidden_size=256, vocab_size=1024), 1)
    for path, deviation in (
        ("embed_tokens.weight", 256**-0.5),
        ("layers.0.mlp.gate_up_proj.weight", 256**-0.5),
        ("layers.0.mlp.down_proj.weight", 96**-0.5),
        ("per_layer_inputs.embed_tokens_per_layer", 16**-0.5),
    ):
        values = np.asarray(weights[path], np.float64)
        assert abs(values.mean()) < 0.02 * deviation and abs(values.std() / deviation - 1) < 0.02
        neighbours = np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]
        assert abs(neighbours) < 0.03
    assert abs(np.asarray(weights["layers.0.post_attention_layernorm.weight"], np.float32).mean() - 0.3) < 0.01
    assert abs(np.asarray(weights["norm.weight"], np.float32).mean() - 1) < 0.03
    a, b = (np.asarray(weights[f"layers.{layer}.self_attn.o_proj.weight"], np.float32) for layer in (0, 1))
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02


def test_the_same_again_and_independent_of_the_devices():
    config = _config("26b-a4b")
    once, again, split, other = (_by_path(config, tp, seed) for tp, seed in ((1, 0), (1, 0), (8, 0), (1, 1)))
    path = "layers.1.sparse.experts.down_proj"
    np.testing.assert_array_equal(once[path], again[path])
    np.testing.assert_array_equal(once[path], split[path])
    assert len(split[path].addressable_shards) == 8 and split[path].addressable_shards[0].data.shape[0] == 1
    assert not np.array_equal(once[path], other[path])


@pytest.mark.parametrize("variant", ["26b-a4b", "e4b"])
def test_thirty_layers_keep_activations_and_spread_over_experts(variant, monkeypatch):
    config = _config(variant, num_hidden_layers=30)
    parts = abstract_model(config, jnp.bfloat16)
    tokens = jnp.asarray(np.random.default_rng(0).integers(3, 256, 256), jnp.int32)
    chosen: list[jax.Array] = []
    route = Router.__call__

    def spy(router, z, padding):
        weights, ids = route(router, z, padding)
        chosen.append(ids)
        return weights, ids

    monkeypatch.setattr(Router, "__call__", spy)

    # Not jitted: thirty unrolled layers take long to compile and nothing to run.
    model = parts.merge(dummy(config, make_mesh(1), jnp.bfloat16))
    keys = DenseKeys(4, 64, jnp.bfloat16)
    x = model.embed_tokens(tokens)
    inputs = None if model.per_layer_inputs is None else model.per_layer_inputs(tokens, x)
    sizes = []
    for layer in model.layers:
        residual = layer(Residual(x, None, None, None), keys, inputs)
        x, (h,) = add_rms_norm(residual, (model.norm.weight[...],), eps=1e-6)
        sizes.append(float(jnp.sqrt(jnp.mean(x.astype(jnp.float32) ** 2))))
    logits = model.logits(h)
    assert all(0.1 < size < 10 for size in sizes)
    assert 0.3 < logits.std() < 3 and jnp.isfinite(logits).all()
    assert len(chosen) == (30 if config.num_experts else 0)
    for layer in chosen:
        load = np.bincount(np.asarray(layer).ravel(), minlength=8) / layer.size * 8
        assert load.max() < 3 and load.min() > 1 / 3


@pytest.mark.parametrize("variant", ["e2b", "31b", "12b"])
def test_encoders_see_and_hear_ordinary_numbers(variant):
    config, mesh = Gemma4Config.from_dict(tiny_with_encoders(variant)), make_mesh(1)
    parts = abstract_encoders(config, jnp.float32, "reference")
    leaves = dummy_encoders(config, mesh, jnp.float32)
    assert [leaf.shape for leaf in leaves] == [param.shape for param in parts.params]
    encoders = parts.merge(leaves)
    pixels = jax.random.randint(jax.random.key(0), (108, 768), 0, 256).astype(jnp.uint8)
    soft = nnx.jit(type(encoders).see)(encoders, pixels, jnp.array([[4, 3]]))
    assert soft.shape == (12, 64) and 0.3 < soft.std() < 3
    if config.audio is not None:
        frames = jax.random.normal(jax.random.key(1), (48, 640 if variant == "12b" else 128))
        assert 0.3 < nnx.jit(type(encoders).hear)(encoders, frames, jnp.asarray(48)).std() < 3
