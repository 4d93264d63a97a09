"""Rows that nobody reads reach no expert, and change nothing for those that somebody does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from g4jax.config import Gemma4Config
from g4jax.nn.attention import DenseKeys
from g4jax.sharding import make_mesh
from g4jax.testing.configs import tiny
from g4jax.weights.abstract import abstract_model
from g4jax.weights.dummy import dummy
from pallas_kernels import moe


@pytest.fixture(scope="module")
def model():
    config = Gemma4Config.from_dict(tiny("26b-a4b")).text
    return abstract_model(config, jnp.float32, 1, "reference").merge(dummy(config, make_mesh(1), jnp.float32))


def test_padding_reaches_no_expert(model, monkeypatch):
    seen, experts = [], moe.experts
    monkeypatch.setattr(moe, "experts", lambda u, w, ids, *a, **k: (seen.append(ids), experts(u, w, ids, *a, **k))[1])
    tokens = jax.random.randint(jax.random.key(0), (12,), 5, 200)
    whole = model(tokens, DenseKeys(1, 12, jnp.float32))
    assert all((ids >= 0).all() for ids in seen)
    seen.clear()
    keys = DenseKeys(1, 12, jnp.float32)
    keys.padding = jnp.arange(12) >= 9
    padded = model(tokens, keys)
    assert seen and all((ids[9:] == -1).all() and (ids[:9] >= 0).all() for ids in seen)
    np.testing.assert_array_equal(padded[:9], whole[:9])
    assert bool(jnp.isfinite(padded).all()) and bool((padded[9:] != whole[9:]).any())
