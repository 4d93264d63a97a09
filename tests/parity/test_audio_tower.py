"""The audio tower against transformers, and what its bucket and its dtype may change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from g4jax.media.mel import soft_tokens
from g4jax.models.audio import AudioTower
from g4jax.tower_config import AudioConfig, audio_config
from tests.parity.audio_reference import CASES, LENGTHS, frames, raw_config, reference_model, reference_tokens, tensors
from tests.parity.reference import STORED

TOLERANCE = 1e-4


@functools.cache
def tower(case: str, dtype=jnp.float32) -> AudioTower:
    config = audio_config(raw_config(case))
    assert isinstance(config, AudioConfig)
    built = AudioTower(config, dtype=dtype)
    state = nnx.state(built, nnx.Param)
    weights = tensors(shapes(built))
    for path, leaf in nnx.to_flat_state(state):
        leaf.set_value(jnp.asarray(weights[".".join(map(str, path))], dtype))
    nnx.update(built, state)
    return built


def shapes(built: AudioTower) -> dict[str, tuple[int, ...]]:
    return {".".join(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(built, nnx.Param))}


@nnx.jit
def run(model: AudioTower, padded: jax.Array, length: jax.Array) -> jax.Array:
    return model(padded, length)


def tokens(case: str, length: int, padded: np.ndarray | None = None, dtype=jnp.float32) -> np.ndarray:
    """What comes out of the first `length` frames."""
    out = run(tower(case, dtype), jnp.asarray(frames() if padded is None else padded), jnp.int32(length))
    assert out.dtype == dtype and bool(jnp.isfinite(out).all())
    return np.asarray(out[: soft_tokens(length)], np.float32)


@pytest.mark.parametrize("case", CASES)
def test_tower_agrees_with_stored_vectors(case):
    stored = np.load(STORED / f"audio_{case}.npz")
    assert sorted(stored) == sorted(map(str, LENGTHS))
    for length in LENGTHS:
        assert stored[str(length)].std() > 0.3
        np.testing.assert_allclose(tokens(case, length), stored[str(length)], atol=TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_tower_agrees_with_transformers(case):
    pytest.importorskip("torch")
    model = reference_model(case)
    assert shapes(tower(case)) == {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    stored = np.load(STORED / f"audio_{case}.npz")
    for length in LENGTHS:
        expected = reference_tokens(model, length)
        # The stored vectors are this reference's.
        np.testing.assert_allclose(expected, stored[str(length)], atol=TOLERANCE)
        np.testing.assert_allclose(tokens(case, length), expected, atol=TOLERANCE)


def test_the_bounds_cut_something_off():
    """Otherwise the clipped case would say no more than the plain one."""
    assert np.abs(tokens("clipped", 149) - tokens("plain", 149)).max() > 0.1


def test_frames_beyond_the_length_change_nothing():
    loud = np.pad(frames(), ((0, 60), (0, 0)))
    loud[149:] = 50.0
    np.testing.assert_allclose(tokens("clipped", 149, loud), tokens("clipped", 149), atol=1e-5)


def test_a_length_of_zero_is_finite():
    assert tokens("clipped", 0).shape == (0, 48)


def test_bfloat16_stays_near():
    exact = tokens("plain", 149)
    error = np.abs(tokens("plain", 149, dtype=jnp.bfloat16) - exact)
    assert 0 < error.mean() < 0.05 * exact.std()


def test_gradients_are_finite():
    def loss(model: AudioTower) -> jax.Array:
        return jnp.square(model(jnp.asarray(frames()), jnp.int32(149))[:38]).mean()

    gradients = nnx.jit(nnx.grad(loss))(tower("clipped"))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))
