"""The cheaper forms of a training step compute what the serving modules compute, and so do their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from g4jax.config import Gemma4Config
from g4jax.models.vision import PatchEmbedder
from g4jax.models.vision_layer import Patches, VisionAttention, axial_tables
from g4jax.nn.moe import Experts
from g4jax.nn.per_layer import PerLayerInputs
from scripts.nano import encoders, network, shape
from scripts.nano.attention import attention
from scripts.nano.tables import TrainedPatchEmbedder, TrainedPerLayerInputs, taken

CONFIG = Gemma4Config.from_dict(shape.config())


def same(one, other, *args) -> None:
    """Both functions of float arrays and their gradients agree."""
    np.testing.assert_allclose(one(*args), other(*args), atol=2e-5)
    places = tuple(range(len(args)))
    gradients = (jax.grad(lambda *x, f=f: jnp.sum(jnp.sin(f(*x))), places)(*args) for f in (one, other))
    for mine, wanted in zip(*gradients, strict=True):
        np.testing.assert_allclose(mine, wanted, atol=2e-4)


def test_attention():
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v = (jax.random.normal(key, (2, 3, 16, 8)) for key in keys[:3])
    seen = jax.random.bernoulli(keys[3], 0.5, (2, 1, 16, 16)) | jnp.eye(16, dtype=bool)

    def plain(q, k, v):
        return jax.nn.softmax(jnp.where(seen, q @ k.swapaxes(-1, -2), -1e30), axis=-1) @ v

    same(lambda q, k, v: attention(q, k, v, seen), plain, q, k, v)


def test_attention_of_a_row_keeps_to_the_segment_and_the_window():
    keys = jax.random.split(jax.random.key(1), 3)
    q = jax.random.normal(keys[0], (1, 64, 4, 8))
    k, v = (jax.random.normal(key, (1, 64, 2, 8)) for key in keys[1:])
    segments = jnp.asarray([[1] * 20 + [2] * 40 + [0] * 4], jnp.uint16)
    for window in (16, 64):
        behind = np.arange(64)[:, None] - np.arange(64)
        seen = (np.asarray(segments[0])[:, None] == np.asarray(segments[0])) & (behind >= 0) & (behind < window)
        scores = jnp.einsum("btkgh,bskh->bkgts", q.reshape(1, 64, 2, 2, 8), k)
        weights = jax.nn.softmax(jnp.where(seen, scores, -1e30), axis=-1)
        wanted = jnp.einsum("bkgts,bskh->btkgh", weights, v).reshape(q.shape)
        np.testing.assert_allclose(network.segment_attention(q, k, v, segments, window=window), wanted, atol=2e-5)


def test_rows_of_a_table():
    index = jnp.asarray([3, 0, 0, 4, 0])
    same(lambda table: taken(table, index), lambda table: table[index], jax.random.normal(jax.random.key(2), (6, 4)))


def test_embeddings_go_to_their_places():
    soft = jax.random.normal(jax.random.key(3), (5, 4)).at[0].set(0)
    source = jnp.asarray([0, 2, 3, 0, 0, 1, 0])
    same(lambda soft: network._placed(soft, source), lambda soft: jnp.where(source[:, None] > 0, soft[source], 0), soft)


def _filled(module, key: int) -> None:
    for at, name in enumerate(sorted(vars(module))):
        leaf = getattr(module, name)
        if hasattr(leaf, "shape"):
            leaf[...] = jax.random.normal(jax.random.key(key + at), leaf.shape)


def test_experts():
    plain, narrow = (form(CONFIG.text, jnp.float32, 1, "reference") for form in (Experts, network.NarrowExperts))
    for module in (plain, narrow):
        _filled(module, 4)
    weights = jnp.asarray([[0.7, 0.3], [0.2, 0.8], [0.5, 0.5]])
    ids = jnp.asarray([[0, 7], [3, 1], [2, 6]])
    u = 0.05 * jax.random.normal(jax.random.key(5), (3, CONFIG.text.hidden_size))
    same(lambda u, w: narrow.partial(u, w, ids), lambda u, w: plain.partial(u, w, ids), u, weights)


@pytest.fixture(scope="module")
def grid():
    place = jnp.arange(24)
    return place % 6, place // 6


def test_patches(grid):
    plain, trained = (form(CONFIG.vision, jnp.float32) for form in (PatchEmbedder, TrainedPatchEmbedder))
    for module in (plain, trained):
        _filled(module, 6)
        module.input_proj.weight[...] = jax.random.normal(jax.random.key(7), module.input_proj.weight.shape)
    pixels = jax.random.randint(jax.random.key(8), (24, 768), 0, 256).astype(jnp.uint8)
    np.testing.assert_allclose(trained(pixels, *grid), plain(pixels, *grid), atol=1e-4)


def test_attention_over_a_picture(grid):
    plain, trained = (
        form(CONFIG.vision, jnp.float32, "reference") for form in (VisionAttention, encoders.TrainedAttention)
    )
    for module in (plain, trained):
        for at, name in enumerate(("q_proj", "k_proj", "v_proj", "o_proj")):
            weight = getattr(module, name).linear.weight
            weight[...] = 0.1 * jax.random.normal(jax.random.key(9 + at), weight.shape)
            for bound in ("input_min", "input_max", "output_min", "output_max"):
                getattr(getattr(module, name), bound)[...] = -64.0 if "min" in bound else 64.0
        module.q_norm.weight[...] = module.k_norm.weight[...] = jnp.full((32,), 0.4)
    patches = Patches(*axial_tables(CONFIG.vision, *grid, jnp.float32), jnp.array([18]))
    h = jax.random.normal(jax.random.key(10), (24, CONFIG.vision.hidden_size))
    same(lambda h: trained(h, patches)[:18], lambda h: plain(h, patches)[:18], h)


def test_inputs_of_the_layers():
    text = CONFIG.text
    width, count = text.hidden_size_per_layer_input, text.num_layers
    plain, trained = (
        form(text.vocab_size_per_layer_input, count, width, text.hidden_size, 1e-6, jnp.float32, "reference")
        for form in (PerLayerInputs, TrainedPerLayerInputs)
    )
    for module in (plain, trained):
        module.embed_tokens_per_layer[...] = jax.random.normal(jax.random.key(11), module.embed_tokens_per_layer.shape)
        weight = module.per_layer_model_projection.weight
        weight[...] = jax.random.normal(jax.random.key(12), weight.shape)
        module.per_layer_projection_norm.weight[...] = jnp.ones(width)
    tokens = jnp.asarray([3, 0, 0, 9])
    h = jax.random.normal(jax.random.key(13), (4, text.hidden_size))
    same(lambda h: trained(tokens, h), lambda h: plain(tokens, h), h)
