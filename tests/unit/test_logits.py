"""Penalties, what they count, and log probabilities."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from g4jax.sample.logits import SamplingBatch, bump, count_tokens, logprobs_of, no_counts, penalize
from tests.kernels.test_draw import DTYPES, OFF, softmax

V = 24
OFF = OFF | dict(repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0)


def make_batch(rows: int, **fields) -> SamplingBatch:
    values = {name: np.broadcast_to(value, rows) for name, value in (OFF | fields).items()}
    return SamplingBatch(**{name: jnp.array(v, DTYPES.get(name, np.float32)) for name, v in values.items()})


def penalized(logits, prompt, output, repetition, presence, frequency):
    result = np.array(logits, np.float64)
    for token in set(prompt) | set(output):
        result[token] = result[token] / repetition if result[token] > 0 else result[token] * repetition
    for token in output:
        result[token] -= frequency
    for token in set(output):
        result[token] -= presence
    return result


def test_penalties_count_prompt_and_output_apart():
    logits = np.random.default_rng(4).normal(size=(3, V))
    prompts, outputs = [[1, 1, 2], [0], [5, 6, 7, 8]], [[2, 3, 3, 3], [], [8]]
    history = np.full((3, 9), -1, np.int32)
    for row, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        history[row, : len(prompt + output)] = prompt + output
    counts = count_tokens(no_counts(3, V), jnp.array(history), jnp.array([len(p) for p in prompts], jnp.int32))
    counts = bump(counts, jnp.array([3, -1, 0], jnp.int32))
    outputs[0].append(3)
    outputs[2].append(0)
    values = dict(repetition_penalty=[1.3, 2.0, 0.8], presence_penalty=[0.5, 1, -2], frequency_penalty=[0.25, 1, -1])
    batch = make_batch(3, temperature=0.0, **values)
    expected = [penalized(*row) for row in zip(logits, prompts, outputs, *values.values(), strict=True)]
    result = penalize(jnp.array(logits, jnp.float32), batch, counts)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert (
        jnp.argmax(penalize(jnp.array(logits, jnp.float32), batch, counts), axis=1) == np.argmax(expected, axis=1)
    ).all()


def test_penalties_that_are_off_change_nothing():
    logits = jnp.array(np.random.default_rng(5).normal(size=(2, V)), jnp.float32)
    counts = count_tokens(no_counts(2, V), jnp.array([[1, 2], [3, -1]], jnp.int32), jnp.array([1, 1], jnp.int32))
    assert (penalize(logits, make_batch(2), counts) == logits).all()


@pytest.mark.parametrize("top", [0, 1, 5])
def test_logprobs(top):
    logits = np.random.default_rng(6).integers(-3, 3, size=(4, V)).astype(np.float64)
    tokens = np.array([0, 5, V - 1, 7])
    chosen, ids, values = jax.jit(logprobs_of, static_argnums=2)(
        jnp.array(logits, jnp.float32), jnp.array(tokens, jnp.int32), top
    )
    expected = np.log([softmax(row) for row in logits])
    order = np.argsort(-expected, axis=1, kind="stable")[:, :top]
    np.testing.assert_allclose(chosen, expected[np.arange(4), tokens], atol=1e-5)
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_allclose(values, np.take_along_axis(expected, order, 1), atol=1e-5)


def test_the_batch_is_a_pytree():
    batch = make_batch(3, seed=[1, 2, 3])
    moved = jax.jit(lambda b: dataclasses.replace(b, index=b.index + 1))(batch)
    assert (moved.index == 1).all() and len(jax.tree.leaves(batch)) == 9
    assert jax.tree.map(lambda field: field[:1], batch).seed.tolist() == [1]
