"""One model over 1, 2, 4 and 8 devices: the same greedy tokens."""

from typing import Any

import pytest

from g4jax.testing.configs import Variant, tiny
from tests.engine import tiny_engine
from tests.engine.tiny_engine import build, requests, run, write_wandering


@pytest.fixture
def one_layer_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mesh compiles its own programs, in a time that grows with the layers."""

    def short(variant: Variant) -> dict[str, Any]:
        shared = 2 if variant == "e2b" else 0
        kinds = ["sliding_attention", "full_attention"] * (2 if shared else 1)
        return tiny(variant, layer_types=kinds, num_hidden_layers=len(kinds), num_kv_shared_layers=shared)

    monkeypatch.setattr(tiny_engine, "tiny", short)


@pytest.mark.usefixtures("one_layer_of_each_kind")
@pytest.mark.parametrize("variant", ["31b", "e2b", "26b-a4b"])
def test_every_mesh_gives_the_same_tokens(variant, tmp_path):
    write_wandering(tmp_path, variant)
    answers = {
        tp: run(build(tmp_path, mesh=f"tp={tp}"), requests(4, tokens=12, temperature=0.0)) for tp in (1, 2, 4, 8)
    }
    assert len(set(answers[1]["1"])) > 2
    assert answers[2] == answers[1] and answers[4] == answers[1] and answers[8] == answers[1]
