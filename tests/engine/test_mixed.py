"""Prompts that go with a decode batch in one launch answer as they do alone."""

import dataclasses

import pytest

from g4jax.engine import capacity
from g4jax.engine.engine import Engine
from g4jax.engine.plan import MixedPlan
from g4jax.engine.request import Request
from g4jax.sample.params import SamplingParams
from tests.engine.tiny_engine import alone, build, requests, run, write_wandering
from tests.parity.media_reference import prompt


@pytest.fixture
def mixing(monkeypatch):
    """Engines of the CPU mix as those of a GPU do, from one decoding request on."""
    shapes = capacity._shapes

    def with_mixed(*args) -> object:
        usual = shapes(*args)
        return dataclasses.replace(usual, mixed_tokens=usual.prefill_tokens)

    monkeypatch.setattr(capacity, "_shapes", with_mixed)


def plans(engine: Engine, monkeypatch) -> list[type]:
    """The kinds of all plans that are launched from now on."""
    kinds, start = [], engine.runner.start
    monkeypatch.setattr(engine.runner, "start", lambda plan: (kinds.append(type(plan)), start(plan))[1])
    return kinds


@pytest.mark.parametrize(("variant", "meshes"), [("e2b", ("tp=1", "tp=2")), ("26b-a4b", ("tp=1",))])
def test_mixed_launches_change_no_answer(variant, meshes, tmp_path, mixing, monkeypatch):
    write_wandering(tmp_path, variant)
    engines = [build(tmp_path, mesh=mesh) for mesh in meshes]
    kinds = [plans(engine, monkeypatch) for engine in engines]
    together = [run(engine, requests(9)) for engine in engines]
    assert all(launched.count(MixedPlan) > 3 for launched in kinds)
    assert together == [alone(engines[0], requests(9))] * len(engines)
    assert any(len(tokens) > 4 for tokens in together[0].values())


def test_images_go_with_those_that_decode(tmp_path, mixing, monkeypatch):
    write_wandering(tmp_path, "31b", encoders=True)
    engine = build(tmp_path, max_prefill_tokens=16)
    ids, media = prompt("31b")
    params = SamplingParams(temperature=0.0, max_tokens=12)

    def batch() -> list[Request]:
        return [*requests(4), *(Request(f"seen {i}", ids, params, media=media) for i in range(2))]

    kinds = plans(engine, monkeypatch)
    together = run(engine, batch())
    assert kinds.count(MixedPlan) > 3
    engine.flush_cache()
    assert together == alone(engine, batch())
