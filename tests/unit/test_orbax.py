"""What orbax saved from one mesh is what safetensors load on another."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from g4jax.config import Gemma4Config
from g4jax.sharding import make_mesh
from g4jax.testing.checkpoints import write_checkpoint
from g4jax.testing.configs import tiny
from g4jax.testing.encoder_configs import tiny_with_encoders
from g4jax.weights import orbax, safetensors
from g4jax.weights.errors import CheckpointError
from g4jax.weights.load import load_encoder_leaves, load_leaves

pytest.importorskip("orbax.checkpoint")


@pytest.mark.parametrize(("variant", "saved", "restored"), [("12b", 1, 8), ("26b-a4b", 8, 2), ("e2b", 4, 1)])
def test_restored_on_another_mesh(tmp_path, variant, saved, restored):
    source, out = tmp_path / "source", tmp_path / "out"
    write_checkpoint(source, tiny_with_encoders(variant))
    (source / "tokenizer.json").write_text("{}")
    config, before, after = Gemma4Config.from_folder(source), make_mesh(saved), make_mesh(restored)
    leaves = safetensors.load(source, config.text, before, jnp.bfloat16)
    encoders = safetensors.load_encoders(source, config, before, jnp.bfloat16)
    orbax.save(out, leaves, config, before, beside=source, encoders=encoders)
    assert (out / "tokenizer.json").is_file()
    assert Gemma4Config.from_folder(out) == config
    _check(load_leaves(out, config.text, after, jnp.float32), safetensors.load(source, config.text, after, jnp.float32))
    seen = load_encoder_leaves(out, config, after, jnp.float32)
    assert len(seen) > 5
    _check(seen, safetensors.load_encoders(source, config, after, jnp.float32))
    with pytest.raises(CheckpointError, match="exists already"):
        orbax.save(out, leaves, config, before, beside=source)
    fewer = Gemma4Config.from_dict(tiny(variant, hidden_size=32)).text
    with pytest.raises(CheckpointError, match="the config asks for"):
        orbax.load(out, fewer, make_mesh(1), jnp.bfloat16)


def _check(back: tuple[jax.Array, ...], expected: tuple[jax.Array, ...]) -> None:
    for ours, theirs in zip(back, expected, strict=True):
        assert ours.dtype == jnp.float32 and ours.sharding == theirs.sharding
        np.testing.assert_array_equal(ours, theirs)


def test_without_orbax(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    (tmp_path / orbax.FOLDER).mkdir()
    with pytest.raises(CheckpointError, match=r"pip install 'g4jax\[orbax\]'"):
        load_leaves(tmp_path, Gemma4Config.from_dict(tiny("12b")).text, make_mesh(1), jnp.bfloat16)
