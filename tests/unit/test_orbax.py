"""What orbax saved from one mesh is what safetensors load on another."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

from g4jax.config import Gemma4Config
from g4jax.sharding import make_mesh
from g4jax.testing.checkpoints import write_checkpoint
from g4jax.testing.configs import tiny
from g4jax.weights import orbax, safetensors
from g4jax.weights.errors import CheckpointError
from g4jax.weights.load import load_leaves

pytest.importorskip("orbax.checkpoint")


@pytest.mark.parametrize(("variant", "saved", "restored"), [("12b", 1, 8), ("26b-a4b", 8, 2), ("e2b", 4, 1)])
def test_restored_on_another_mesh(tmp_path, variant, saved, restored):
    source, out = tmp_path / "source", tmp_path / "out"
    write_checkpoint(source, tiny(variant))
    (source / "tokenizer.json").write_text("{}")
    config = Gemma4Config.from_folder(source).text
    leaves = safetensors.load(source, config, make_mesh(saved), jnp.bfloat16)
    orbax.save(out, leaves, config, make_mesh(saved), beside=source)
    assert (out / "tokenizer.json").is_file()
    assert Gemma4Config.from_folder(out).text == config
    back = load_leaves(out, config, make_mesh(restored), jnp.float32)
    expected = safetensors.load(source, config, make_mesh(restored), jnp.float32)
    for ours, theirs in zip(back, expected, strict=True):
        assert ours.dtype == jnp.float32 and ours.sharding == theirs.sharding
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(CheckpointError, match="exists already"):
        orbax.save(out, leaves, config, make_mesh(saved), beside=source)
    fewer = Gemma4Config.from_dict(tiny(variant, hidden_size=32)).text
    with pytest.raises(CheckpointError, match="the config asks for"):
        orbax.load(out, fewer, make_mesh(1), jnp.bfloat16)


def test_without_orbax(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    (tmp_path / orbax.FOLDER).mkdir()
    with pytest.raises(CheckpointError, match=r"pip install 'g4jax\[orbax\]'"):
        load_leaves(tmp_path, Gemma4Config.from_dict(tiny("12b")).text, make_mesh(1), jnp.bfloat16)
