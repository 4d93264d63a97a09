"""Nano's eyes and ears in training are those that serve: padding changes nothing, and what is written can be loaded."""

import random
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from g4jax.config import Gemma4Config
from g4jax.sharding import make_mesh
from g4jax.weights.load import load_encoder_leaves, load_leaves
from scripts.nano import encoders, export, senses
from scripts.nano.media_rows import CLIP_FRAMES, PATCHES, Size, medium
from scripts.nano.media_workers import Slots
from scripts.nano.optimizer import kind
from scripts.nano.step import Network


@pytest.fixture(scope="module")
def net() -> Network:
    return Network(3)


def test_padding_of_a_picture_and_of_a_sound_changes_nothing(net):
    towers = net.encoders.merged(net.params, jnp.float32)
    rng = random.Random(1)
    (seen,) = (
        piece
        for part in senses.media_parts(senses.sample(rng, "image_number").messages)
        for piece in medium(part).inputs
    )
    rows, columns = seen.grid
    alone = nnx.jit(type(towers).see)(towers, jnp.asarray(seen.data), jnp.asarray([[rows, columns]], jnp.int32))
    pixels = np.full((1, PATCHES, 768), 200, np.uint8)
    pixels[0, : len(seen.data)] = seen.data
    padded = nnx.jit(encoders.see_all)(towers, jnp.asarray(pixels), jnp.asarray([[rows, columns]], jnp.int32))
    np.testing.assert_allclose(padded[0, : rows * columns], alone, atol=2e-4)

    ((heard,),) = (medium(part).inputs for part in senses.media_parts(senses.sample(rng, "audio_digit").messages))
    count = len(heard.data)
    whole = np.pad(heard.data, [(0, -count % 4), (0, 0)])
    alone = nnx.jit(type(towers).hear)(towers, jnp.asarray(whole), jnp.int32(count))
    frames = np.full((1, CLIP_FRAMES, 128), 3.0, np.float32)
    frames[0, :count] = heard.data
    padded = nnx.jit(encoders.hear_all)(towers, jnp.asarray(frames), jnp.asarray([count], jnp.int32))
    np.testing.assert_allclose(padded[0, : heard.num_tokens], alone[: heard.num_tokens], atol=2e-4)


def test_what_is_written_can_be_loaded_and_trained_further(net, tmp_path: Path):
    export.write(tmp_path, {name: np.asarray(leaf) for name, leaf in net.params.items()})
    config = Gemma4Config.from_folder(tmp_path)
    again = encoders.load(tmp_path)
    assert again.keys() == net.encoders.params.keys()
    for name, leaf in net.encoders.params.items():
        assert again[name].shape == leaf.shape
        np.testing.assert_array_equal(again[name], leaf.astype(jnp.bfloat16).astype(jnp.float32))
    mesh = make_mesh(1)
    assert len(load_encoder_leaves(tmp_path, config, mesh, jnp.bfloat16)) == len(again)
    assert len(load_leaves(tmp_path, config.text, mesh, jnp.bfloat16)) == len(net.text.params)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 16 * 2**20


def test_clamps_stand_still_and_matrices_go_to_muon(net):
    kinds = {name: kind(name, leaf) for name, leaf in net.params.items()}
    assert kinds["vision_tower.encoder.layers.0.self_attn.q_proj.input_max"] == "still"
    assert kinds["vision_tower.encoder.layers.0.self_attn.q_proj.linear.weight"] == "muon"
    assert kinds["audio_tower.subsample_conv_projection.layer0.conv.weight"] == "adam"
    assert kinds["embed_tokens.weight"] == "adam"


def test_the_slots_of_a_shared_memory_do_not_overlap():
    slots = Slots(Size(rows=2, length=64, images=1, clips=2), 3)
    for slot in range(3):
        for array in slots.batch(slot):
            array[...] = slot + 1
    for slot in range(3):
        assert all((array == slot + 1).all() for array in slots.batch(slot))


def test_random_encoders_give_embeddings_of_the_size_of_a_tokens(net):
    towers = net.encoders.merged(net.params, jnp.float32)
    pixels = jax.random.randint(jax.random.key(0), (1, PATCHES, 768), 0, 256).astype(jnp.uint8)
    soft = encoders.see_all(towers, pixels, jnp.asarray([[8, 8]], jnp.int32))[0, :64]
    assert 0.5 < float(jnp.sqrt(jnp.mean(soft**2))) < 2
