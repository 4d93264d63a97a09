"""Penalties, what they count, and log probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from g4jax.engine.packing import unpack
from g4jax.engine.request import Request
from g4jax.engine.said_inputs import TOGETHER, said_fields, said_inputs
from g4jax.sample.logits import SamplingBatch, bump, logprobs_of, penalize, with_counts
from g4jax.sample.params import SamplingParams
from tests.kernels.test_draw import DTYPES, OFF, softmax

V = 24


def penalized(logits, prompt, output, repetition, presence, frequency):
    result = np.array(logits, np.float64)
    for token in set(prompt) | set(output):
        result[token] = result[token] / repetition if result[token] > 0 else result[token] * repetition
    for token in output:
        result[token] -= frequency
    for token in set(output):
        result[token] -= presence
    return result


def requests_of(prompts, outputs, **fields) -> list[Request]:
    """`fields`: one value for each request."""
    requests = []
    for row, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        params = SamplingParams(**{name: values[row] for name, values in fields.items()})
        request = Request(str(row), prompt, params)
        request.status = "running"
        request.take(output, len(prompt) + 99)
        requests.append(request)
    return requests


def said_by(requests: list[Request], rows: int, vocab_size: int) -> tuple[jax.Array, int]:
    """As a launch has it, and how many launches it took to count."""
    said, launches = jnp.zeros((rows, vocab_size), jnp.int32), said_inputs(requests, [1] * len(requests), rows)
    for packed in launches:
        said = with_counts(said, **unpack(said_fields(rows), jnp.array(packed)))
    return said, len(launches)


def make_batch(rows: int, **fields) -> SamplingBatch:
    """`fields`: of the first rows; those behind have no penalties."""
    names = ("repetition_penalty", "presence_penalty", "frequency_penalty")
    defaults = dict.fromkeys((*OFF, *names), 0.0) | {"repetition_penalty": 1.0}
    values = {name: np.full(rows, value, DTYPES.get(name, np.float32)) for name, value in defaults.items()}
    for name, given in fields.items():
        values[name][: len(given)] = given
    return SamplingBatch(**{name: jnp.array(value) for name, value in values.items()})


def test_penalties_count_prompt_and_output_apart():
    logits = np.random.default_rng(4).normal(size=(3, V))
    prompts, outputs = [[1, 1, 2], [7], [5, 6, 7, 8]], [[2, 3, 3, 3], [], [8]]
    values = dict(
        repetition_penalty=[1.3, 2.0, 0.8], presence_penalty=[0.5, 1.0, -2.0], frequency_penalty=[0.25, 1.0, -1.0]
    )
    requests = requests_of(prompts, outputs, **values)
    padded, batch = np.pad(logits, ((0, 1), (0, 0))).astype(np.float32), make_batch(4, **values)

    def check(said):
        expected = [
            penalized(row, request.prompt_ids, request.output_ids, *own)
            for row, request, own in zip(logits, requests, zip(*values.values(), strict=True), strict=True)
        ]
        np.testing.assert_allclose(penalize(jnp.array(padded), batch, said)[:3], expected, atol=1e-5)

    for following in ([3, 9, 0], [3, 2, 23]):  # What is kept of a request grows with its answer.
        said, launches = said_by(requests, 4, V)
        assert launches == 1
        check(said)
        for request, token in zip(requests, following, strict=True):
            request.take([token], 99)
        check(bump(said, jnp.array([*following, 0], jnp.int32)))


def test_who_has_said_much_takes_several_launches_to_count():
    size = 2 * TOGETHER + 100
    prompt = np.random.default_rng(9).integers(0, size, 20 * size).tolist()
    requests = requests_of([prompt, [4, 5]], [[7, size - 1, 7], [5]], presence_penalty=[0.5, 0.5])
    said, launches = said_by(requests, 2, size)
    expected = np.zeros((2, size), np.int32)
    expected[0, prompt], expected[1, [4, 5]] = 1, 1
    np.add.at(expected, ([0, 0, 0, 1], [7, size - 1, 7, 5]), 2)
    assert launches == 3 and (said == expected).all()


def test_nothing_is_counted_where_nobody_asks():
    requests = requests_of([[1], [2]], [[3], [4]], logprobs=[3, None], frequency_penalty=[0.0, 0.5])
    requests[1].status = "finished"
    assert said_inputs(requests, [1, 1], 4) == []
    requests[1].status = "running"
    assert said_inputs(requests, [1, 0], 4) == [] and len(said_inputs(requests, [1, 1], 4)) == 1


def test_penalties_that_are_off_change_nothing():
    logits = jnp.array(np.random.default_rng(5).normal(size=(2, V)), jnp.float32)
    said = jnp.zeros((2, V), jnp.int32).at[0, 1].set(3)
    assert (penalize(logits, make_batch(2), said) == logits).all()


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
