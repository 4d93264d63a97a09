"""One model over 1, 2, 4 and 8 devices: the same greedy tokens."""

import pytest

from tests.engine.tiny_engine import build, requests, run, write_wandering


@pytest.mark.parametrize("variant", ["31b", "e2b", "26b-a4b"])
def test_every_mesh_gives_the_same_tokens(variant, tmp_path):
    write_wandering(tmp_path, variant)
    answers = {
        tp: run(build(tmp_path, mesh=f"tp={tp}"), requests(4, tokens=12, temperature=0.0)) for tp in (1, 2, 4, 8)
    }
    assert len(set(answers[1]["1"])) > 2
    assert answers[2] == answers[1] and answers[4] == answers[1] and answers[8] == answers[1]
