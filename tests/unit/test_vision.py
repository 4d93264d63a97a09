"""What the towers promise besides their numbers: bounds, independence of packed images, dtype, a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from g4jax.models.unified import squares
from g4jax.models.vision import VisionTower, places, pool
from g4jax.nn.clipped import ClippedLinear
from g4jax.tower_config import VisionConfig

CONFIG = VisionConfig(
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=2,
    head_dim=16,
    position_embedding_size=12,
    rope_theta=100.0,
    rms_norm_eps=1e-6,
    clipped=False,
    standardize=True,
)


def tower(dtype=jnp.float32) -> VisionTower:
    """Random parameters around a half, so that nothing is switched off."""
    model = VisionTower(CONFIG, dtype=dtype, implementation="reference")
    rng = np.random.default_rng(0)
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda p: jnp.asarray(0.5 + 0.2 * rng.normal(size=p.shape), dtype), state))
    return model


def two_images() -> list[jnp.ndarray]:
    """An image of 1 x 2 soft tokens, and one of 1 x 1 with a token of padding."""
    pixels = np.random.default_rng(1).integers(0, 256, (36, 768), np.uint8)
    patch, token = np.arange(36) % 9, np.repeat([0, 1, 0, 0], 9)
    return [jnp.asarray(part) for part in (pixels, 3 * token + patch % 3, patch // 3, np.array([18, 9]))]


def test_a_clipped_linear_clamps_what_goes_in_and_what_comes_out():
    layer = ClippedLinear(2, 2, True, jnp.float32)
    layer.linear.weight[...] = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    for name, value in {"input_min": -1, "input_max": 2, "output_min": -0.5, "output_max": 3}.items():
        getattr(layer, name)[...] = jnp.float32(value)
    np.testing.assert_array_equal(layer(jnp.array([[5.0, 5.0], [-5.0, 0.25]])), [[2, 3], [-0.5, -0.5]])


def test_a_linear_that_is_not_clipped_has_no_bounds():
    layer = ClippedLinear(1, 1, False, jnp.float32)
    layer.linear.weight[...] = jnp.array([[2.0]])
    assert [path for path, _ in nnx.to_flat_state(nnx.state(layer))] == [("linear", "weight")]
    np.testing.assert_array_equal(layer(jnp.array([[1e6]])), [[2e6]])


@pytest.mark.parametrize("changed, same", [(slice(18, 36), slice(0, 2)), (slice(0, 18), slice(2, 3))])
def test_an_image_does_not_see_its_neighbours(changed, same):
    model, inputs = tower(), two_images()
    other = [inputs[0].at[changed].set(7), *inputs[1:]]
    before, after = np.asarray(model(*inputs)), np.asarray(model(*other))
    np.testing.assert_array_equal(before[same], after[same])
    assert np.abs(before - after)[:3].max() > 1e-3


def test_every_patch_of_an_image_reaches_each_of_its_tokens():
    model, inputs = tower(), two_images()
    other = [inputs[0].at[17].set(0), *inputs[1:]]
    moved = np.abs(np.asarray(model(*inputs)) - np.asarray(model(*other))).max(axis=1)
    assert (moved[:2] > 0).all() and (moved[2:] == 0).all()


def test_bfloat16_stays_near_float32():
    exact = np.asarray(tower()(*two_images()))
    rounded = tower(jnp.bfloat16)(*two_images())
    assert rounded.dtype == jnp.bfloat16
    assert np.corrcoef(exact.ravel(), np.asarray(rounded, np.float32).ravel())[0, 1] > 0.99


def test_the_tower_can_be_trained_through():
    graph, state = nnx.split(tower())
    gradient = jax.jit(jax.grad(lambda state: jnp.sum(nnx.merge(graph, state)(*two_images())[:3] ** 2)))(state)
    for path, leaf in nnx.to_flat_state(gradient):
        assert bool(jnp.isfinite(leaf[...]).all()), path
        assert bool((leaf[...] != 0).any()), path


def test_pooling_takes_nine_patches_each_and_scales_by_the_root_of_the_width():
    v = jnp.arange(18 * 4, dtype=jnp.bfloat16).reshape(18, 4)
    pooled = pool(v)
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(pooled, 2 * np.arange(72).reshape(2, 9, 4).mean(axis=1))


def test_nine_patches_make_a_square_of_48_pixels():
    square = np.arange(48 * 48 * 3, dtype=np.float32).reshape(48, 48, 3)
    patches = square.reshape(3, 16, 3, 16, 3).swapaxes(1, 2).reshape(9, 768)
    np.testing.assert_array_equal(squares(jnp.asarray(patches)), square.reshape(1, -1))


def test_patches_stand_token_by_token_and_padding_nowhere():
    x, y = places(jnp.array([[1, 2], [0, 0]]), 27)
    assert x[:9].tolist() == [0, 1, 2] * 3 and x[9:18].tolist() == [3, 4, 5] * 3
    assert y[:18].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] * 2
    assert not x[18:].any() and not y[18:].any()
