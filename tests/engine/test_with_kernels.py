"""The kernels of the draw inside an engine, under the interpreter: tokens and log probabilities as without them."""

import pytest

from g4jax.engine import drawing
from g4jax.engine.engine import Engine
from g4jax.engine.request import Request
from pallas_kernels.draw import api
from tests.engine.tiny_engine import OnlyThese, build, guided, requests, write_wandering

SHAPED = {"logprobs": 3, "frequency_penalty": 0.5, "top_p": 0.9}


def told(engine: Engine, batch: list[Request]) -> dict[str, list]:
    """Tokens, and what is told of each."""
    out: dict[str, list] = {request.id: [] for request in batch}
    for request in batch:
        engine.add_request(request)
    while engine.has_work:
        for update in engine.step():
            out[update.request_id] += [*update.token_ids, *update.logprobs]
    return out


def test_an_engine_draws_and_tells_with_kernels_as_without(tmp_path, monkeypatch: pytest.MonkeyPatch):
    write_wandering(tmp_path, "e2b")

    def answers() -> list[dict[str, list]]:
        engine = build(tmp_path, mesh="tp=2")
        batches = [requests(3, tokens=6), requests(3, tokens=6, **SHAPED)]
        batches.append([*requests(2, tokens=6, **SHAPED), guided(OnlyThese({40, 41, 77}), **SHAPED)])
        return [told(engine, batch) for batch in batches]

    expected = answers()
    for module in (api, drawing):
        monkeypatch.setattr(module, "resolve", lambda _: "interpret")
    assert expected == answers()
