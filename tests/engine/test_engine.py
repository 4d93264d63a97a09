"""The engine over a tiny model: what a request gets does not depend on what else is there."""

import itertools
from typing import Any

import jax
import numpy as np
import pytest

from g4jax.engine.scoring import batch_logits, prompt_logits
from tests.engine.tiny_engine import OnlyThese, alone, build, guided, requests, run, with_pages, write_wandering

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


def test_a_guide_is_obeyed_and_disturbs_nobody(fresh, expected):
    guide = OnlyThese({40, 41, 77})
    out = run(fresh, [*requests(10), guided(guide)])
    assert set(out["guided"]) <= guide.allowed and out["guided"] == guide.seen and len(guide.seen) == 12
    assert {name: ids for name, ids in out.items() if name != "guided"} == expected


def test_penalties_count_the_same_one_token_at_a_time(fresh):
    """Beside a guide every launch makes one token, and nobody waits for the one before."""
    penalties: dict[str, Any] = {
        "frequency_penalty": 0.7,
        "repetition_penalty": 1.2,
        "logit_bias": ((9, 1.5),),
        "logprobs": 2,
    }
    apart = alone(fresh, requests(3, tokens=24, **penalties))
    guide = OnlyThese({40, 41, 77})  # the first of four, which are all that run at once
    together = run(fresh, [guided(guide, max_tokens=40), *requests(3, tokens=24, **penalties)])
    assert {name: ids for name, ids in together.items() if name != "guided"} == apart


def test_the_layers_of_a_guided_token_run_before_the_token_is_known(fresh, monkeypatch):
    """And it is drawn when the guide has seen the one before."""
    order, guide = [], OnlyThese({40, 41})
    forward, complete = fresh.runner._forward, fresh.scheduler.complete_decode
    mask = guide.complete

    def told(name, call):
        return lambda *args: (order.append(name), call(*args))[1]

    monkeypatch.setattr(fresh.runner, "_forward", told("layers", forward))
    monkeypatch.setattr(fresh.scheduler, "complete_decode", told("known", complete))
    monkeypatch.setattr(guide, "complete", told("mask", mask))
    run(fresh, [guided(guide)])
    # The first token is the prompt's. No layers run for the last, whose limit is known.
    assert order == ["mask", "layers", "mask", *["layers", "known", "mask"] * 10, "known"]


def test_min_tokens_does_not_force_what_a_guide_forbids(fresh):
    end = 3
    for allowed, most in (({end}, 1), ({end, 40}, 6)):
        request = guided(OnlyThese(allowed), min_tokens=6, logit_bias=((end, 100.0),))
        ids = run(fresh, [request])["guided"]
        assert (ids, request.finish_reason) == ([40] * (most - 1) + [end], "stop")


def test_logit_bias_moves_the_choice_of_its_request_alone(fresh):
    plain = alone(fresh, requests(2, temperature=0.0))
    biased = requests(2, temperature=0.0)
    biased[1] = requests(2, temperature=0.0, logit_bias=((123, 100.0),))[1]
    out = run(fresh, biased)
    assert out["0"] == plain["0"] and set(out["1"]) == {123}


def test_log_probabilities_are_those_of_the_logits(fresh):
    [request] = requests(1, temperature=0.0, logprobs=4, prompt_logprobs=2)
    fresh.add_request(request)
    updates = []
    while fresh.has_work:
        updates += fresh.step()
    told = [entry for update in updates for entry in update.logprobs]
    [prompt] = [update.prompt_logprobs for update in updates if update.prompt_logprobs]
    assert len(told) == len(request.output_ids) and len(prompt) == len(request.prompt_ids) and prompt[0] is None
    logits = np.concatenate([*prompt_logits(fresh, request.tokens[:-1])])
    want = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for at, entry in enumerate([*prompt[1:], *told]):
        token, top = request.tokens[at + 1], 4 if at >= len(prompt) - 1 else 2
        np.testing.assert_allclose(entry.logprob, want[at, token], atol=1e-4)
        np.testing.assert_allclose(entry.top_logprobs, np.sort(want[at])[::-1][:top], atol=1e-4)
        np.testing.assert_allclose(want[at, entry.top_ids], entry.top_logprobs, atol=1e-4)


def test_sequences_that_are_scored_together_have_the_logits_of_each_alone(fresh):
    rng = np.random.default_rng(3)
    sequences = [rng.integers(5, 240, 30).tolist() for _ in range(6)]  # more than the batch holds, and cut in pieces
    together = batch_logits(fresh, sequences, 21)
    for sequence, logits in zip(sequences, together, strict=True):
        np.testing.assert_allclose(logits, np.concatenate([*prompt_logits(fresh, sequence)]), atol=1e-4)


def test_a_flushed_cache_is_not_used_again(fresh):
    run(fresh, requests(10))
    before, after = requests(10), requests(10)
    alone(fresh, before)
    fresh.flush_cache()
    alone(fresh, after)
    assert any(request.num_cached for request in before) and not any(request.num_cached for request in after)
    fresh.scheduler.check_integrity()


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
            (2, {"logprobs": 3}),
            (3, {"prompt_logprobs": 3}),
            (2, {"logit_bias": ((7, -100.0),)}),
        ):
            run(fresh, requests(count, **params))
        run(fresh, [guided(OnlyThese({7, 9}))])
        fresh.runner.warm_up(lambda text, done, total: None)
        assert not compiled
    finally:
        jax.monitoring.clear_event_listeners()
