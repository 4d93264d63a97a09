"""Loading onto 1, 2, 4 and 8 devices gives back the checkpoint's tensors; a bad checkpoint gives one clear error."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from g4jax.config import Gemma4Config, TextConfig
from g4jax.sharding import MeshError, make_mesh
from g4jax.testing.checkpoints import write_checkpoint
from g4jax.testing.configs import VARIANTS, tiny
from g4jax.weights.abstract import abstract_model
from g4jax.weights.errors import CheckpointError
from g4jax.weights.files import StoredTensor
from g4jax.weights.hub import resolve
from g4jax.weights.load import load_leaves
from g4jax.weights.safetensors import load


def _config(folder: Path) -> TextConfig:
    return Gemma4Config.from_folder(folder).text


def _by_path(config: TextConfig, tp: int, leaves: tuple[jax.Array, ...]) -> dict[str, list[np.ndarray]]:
    """Every parameter's parts in the order of the devices; each part must be on its own device."""
    parts = {}
    for param, leaf in zip(abstract_model(config, leaves[0].dtype, tp).params, leaves, strict=True):
        shards = sorted(leaf.addressable_shards, key=lambda shard: shard.device.id)
        assert [shard.device.id for shard in shards] == list(range(tp))
        parts[param.path] = [np.asarray(shard.data) for shard in shards]
    return parts


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
@pytest.mark.parametrize("variant", VARIANTS)
def test_shards_make_up_the_checkpoint(tmp_path, variant, tp):
    tensors = write_checkpoint(tmp_path, tiny(variant), files=1 + (variant == "26b-a4b"))
    config = _config(tmp_path)
    parts = _by_path(config, tp, load(tmp_path, config, make_mesh(tp), jnp.bfloat16))
    for path, name, axis in (
        ("embed_tokens.weight", "embed_tokens.weight", 0),
        ("layers.5.self_attn.o_proj.weight", "layers.5.self_attn.o_proj.weight", 1),
        ("layers.4.mlp.down_proj.weight", "layers.4.mlp.down_proj.weight", 1),
        ("layers.2.sparse.experts.gate_up_proj", "layers.2.experts.gate_up_proj", 0),
    ):
        if path in parts:
            np.testing.assert_array_equal(np.concatenate(parts[path], axis), tensors[name])
    for path, name in (
        ("layers.3.layer_scalar", "layers.3.layer_scalar"),
        ("layers.1.sparse.router.proj.weight", "layers.1.router.proj.weight"),
        ("layers.1.per_layer.per_layer_projection.weight", "layers.1.per_layer_projection.weight"),
        ("per_layer_inputs.embed_tokens_per_layer", "embed_tokens_per_layer.weight"),
    ):
        for part in parts.get(path, []):
            np.testing.assert_array_equal(part, tensors[name])
    for spec in config.layers:
        for device, part in enumerate(parts[f"layers.{spec.index}.self_attn.qkv_proj.weight"]):
            expected = _qkv_of_device(config, spec.index, tensors, device, tp)
            np.testing.assert_array_equal(part, expected)
        for device, part in enumerate(parts[f"layers.{spec.index}.mlp.gate_up_proj.weight"]):
            halves = [tensors[f"layers.{spec.index}.mlp.{half}_proj.weight"] for half in ("gate", "up")]
            np.testing.assert_array_equal(part, np.concatenate([np.split(half, tp)[device] for half in halves]))


def _qkv_of_device(config: TextConfig, layer: int, tensors: dict[str, np.ndarray], device: int, tp: int) -> np.ndarray:
    """By heads: the device's query heads, and the key heads that these query heads attend to."""
    spec = config.layers[layer]
    n = config.num_attention_heads
    queries = range(device * n // tp, (device + 1) * n // tp)
    keys = sorted({query // (n // spec.num_kv_heads) for query in queries})
    wanted = [("q_proj", queries)]
    if spec.owns_kv:
        wanted += [("k_proj", keys)] + ([] if spec.k_eq_v else [("v_proj", keys)])
    rows = []
    for name, heads in wanted:
        by_head = tensors[f"layers.{layer}.self_attn.{name}.weight"].reshape(-1, spec.head_dim, config.hidden_size)
        rows += [by_head[head] for head in heads]
    return np.concatenate(rows)


@pytest.mark.parametrize("prefix", ["model.", "model.language_model."])
def test_float32_and_prefixes(tmp_path, prefix):
    tensors = write_checkpoint(tmp_path, tiny("e2b"), prefix=prefix)
    config = _config(tmp_path)
    seen = []
    leaves = load_leaves(tmp_path, config, make_mesh(2), jnp.float32, progress=lambda *done: seen.append(done))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    parts = _by_path(config, 2, leaves)
    np.testing.assert_array_equal(parts["norm.weight"][1], tensors["norm.weight"].astype(np.float32))
    gate_up = parts["layers.0.mlp.gate_up_proj.weight"][0]
    np.testing.assert_array_equal(gate_up[:48], tensors["layers.0.mlp.gate_proj.weight"][:48].astype(np.float32))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (abstract_model(config, jnp.float32, 2).nbytes,) * 2


def test_a_gpu_gets_views_of_the_file(tmp_path, monkeypatch):
    """The path of accelerators, where nothing is copied on the host: strided views must arrive whole."""
    tensors = write_checkpoint(tmp_path, tiny("31b"))
    config = _config(tmp_path)
    mesh = make_mesh(2)
    monkeypatch.setattr("g4jax.weights.safetensors._is_cpu", lambda mesh: False)
    parts = _by_path(config, 2, load(tmp_path, config, mesh, jnp.bfloat16))
    down = np.concatenate(parts["layers.0.mlp.down_proj.weight"], 1)
    np.testing.assert_array_equal(down, tensors["layers.0.mlp.down_proj.weight"])


def test_unread_tensors_may_be_absent_or_present(tmp_path):
    write_checkpoint(tmp_path, tiny("e4b"))
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    unread = [
        name for name in tensors if any(part in name for part in ("layers.3.self_attn.k", "layers.5.self_attn.v"))
    ]
    assert len(unread) == 3
    kept = {name: tensor for name, tensor in tensors.items() if name not in unread}
    save_file({**kept, "lm_head.weight": tensors["model.language_model.embed_tokens.weight"]}, file)
    assert load(tmp_path, _config(tmp_path), make_mesh(1), jnp.bfloat16)


def test_every_missing_and_misshapen_tensor_is_in_one_error(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, tiny("26b-a4b"))
    file = tmp_path / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if ".layers.1." not in name}
    tensors["model.language_model.norm.weight"] = np.zeros(63, np.float32)
    tensors["model.language_model.layers.0.self_attn.q_norm.weight"] = np.zeros(16, np.int8)
    save_file(tensors, file)
    monkeypatch.setattr(StoredTensor, "bits", lambda tensor: pytest.fail("read before everything was checked"))
    with pytest.raises(CheckpointError) as error:
        load(tmp_path, _config(tmp_path), make_mesh(1), jnp.bfloat16)
    text = str(error.value)
    assert "24 differences" in text and "and 14 more" in text and "config.json" in text
    assert "layers.1.input_layernorm.weight [64] is missing" in text
    assert "layers.0.self_attn.q_norm.weight is stored as I8" in text


def test_more_layers_than_the_config_has_is_an_error(tmp_path):
    write_checkpoint(tmp_path, tiny("31b"))
    fewer = Gemma4Config.from_dict(tiny("31b", num_hidden_layers=5)).text
    with pytest.raises(CheckpointError, match="layers.5.*belongs to no layer"):
        load(tmp_path, fewer, make_mesh(1), jnp.bfloat16)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:9], lambda data: b"\xff" * 64])
def test_damaged_files_are_named(tmp_path, damage):
    write_checkpoint(tmp_path, tiny("31b"), files=2)
    file = tmp_path / "model-00002-of-00002.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match="model-00002-of-00002.safetensors is damaged"):
        load(tmp_path, _config(tmp_path), make_mesh(1), jnp.bfloat16)


def test_incomplete_folders(tmp_path):
    write_checkpoint(tmp_path, tiny("31b"), files=3)
    config, mesh = _config(tmp_path), make_mesh(1)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks model-00002-of-00003.safetensors"):
        load(tmp_path, config, mesh, jnp.bfloat16)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps([]))
    with pytest.raises(CheckpointError, match="index.json is damaged"):
        load(tmp_path, config, mesh, jnp.bfloat16)
    with pytest.raises(CheckpointError, match="not a folder"):
        load(tmp_path / "none" / "such" / "folder", config, mesh, jnp.bfloat16)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="has no"):
        load(tmp_path / "empty", config, mesh, jnp.bfloat16)


def test_a_hub_that_cannot_be_reached(monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no route to host\nand a long tail")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(CheckpointError, match="google/gemma-4-E2B-it is not a folder here.*no route to host"):
        resolve("google/gemma-4-E2B-it")


def test_tp_must_divide(tmp_path):
    odd = Gemma4Config.from_dict(tiny("31b", intermediate_size=97)).text
    with pytest.raises(MeshError, match="intermediate_size is 97"):
        abstract_model(odd, "bfloat16", 2)
