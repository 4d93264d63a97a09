"""The engine over a tiny model: what a request gets does not depend on what else is there."""

import itertools

import jax
import numpy as np
import pytest

from tests.engine.tiny_engine import alone, build, requests, run, with_pages, write_wandering

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wandering")
    write_wandering(folder, "e2b")
    return build(folder, compile_ahead=True)


@pytest.fixture(scope="module")
def expected(engine):
    answers = alone(engine, requests(10))
    assert all(len(set(ids)) > 3 for ids in answers.values() if len(ids) == 20), "the answers must not be trivial"
    return answers


def test_a_batch_answers_as_each_request_alone(engine, expected):
    assert run(engine, requests(10)) == expected


def test_cached_prefixes_change_nothing(engine, expected):
    again = requests(10)
    assert run(engine, again) == expected
    assert sum(request.num_cached > 0 for request in again) > 2


def test_preempted_requests_resume_with_the_same_answer(engine, expected):
    scarce = with_pages(engine, sliding_pages=64, full_pages=34)
    assert run(scarce, requests(10)) == expected
    assert scarce.stats().preemptions > 0


@pytest.fixture
def fresh(engine):
    """What the engine's own scheduler remembers of the pages, the scarce one has overwritten."""
    return with_pages(engine, sliding_pages=128, full_pages=128)


def test_an_aborted_request_leaves_no_trace(fresh, expected):
    batch = requests(10)
    for request in batch:
        fresh.add_request(request)
    out = {request.id: [] for request in batch}
    for step in itertools.count():
        if step == 1:
            fresh.abort("4")
        if not fresh.has_work:
            break
        for update in fresh.step():
            out[update.request_id] += update.token_ids
    assert {id: ids for id, ids in out.items() if id != "4"} == {id: ids for id, ids in expected.items() if id != "4"}
    assert fresh.stats().sliding_pages_used == fresh.stats().full_pages_used == 0


def test_penalties_and_min_tokens_are_of_their_request_alone(fresh):
    plain, shaped = requests(2, tokens=30, temperature=0.0), requests(2, tokens=30, temperature=0.0)
    shaped[1] = requests(2, tokens=30, temperature=0.0, frequency_penalty=2.0, min_tokens=30)[1]
    before, after = alone(fresh, plain), run(fresh, shaped)
    assert after["0"] == before["0"] and after["1"] != before["1"]
    assert max(np.unique(after["1"], return_counts=True)[1]) < max(np.unique(before["1"], return_counts=True)[1])
    assert len(after["1"]) == 30 and 3 not in after["1"]


def test_nothing_is_compiled_after_ready(fresh):
    compiled = []
    listener = lambda name, duration, **kwargs: compiled.append(name) if name == COMPILED else None  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        jax.jit(lambda x: x + 1)(np.zeros(7))
        assert compiled, "the listener hears compilations"
        compiled.clear()
        for count, params in (
            (1, {}),
            (3, {"temperature": 0.0}),
            (9, {"presence_penalty": 1.0}),
            (6, {"min_tokens": 5}),
        ):
            run(fresh, requests(count, **params))
        assert not compiled
    finally:
        jax.monitoring.clear_event_listeners()
