"""What a checkpoint forbids, in the engine that the server runs."""

import collections
import json

from g4jax.sample.defaults import GenerationDefaults
from tests.engine.tiny_engine import build, requests, run, write_wandering


def test_suppressed_tokens_are_never_drawn(tmp_path):  # row 167
    write_wandering(tmp_path, "e2b")
    free = run(build(tmp_path), requests(4))
    drawn = collections.Counter(token for answer in free.values() for token in answer)
    forbidden = [token for token, _ in drawn.most_common(3)]
    (tmp_path / "generation_config.json").write_text(json.dumps({"suppress_tokens": forbidden}))
    engine = build(tmp_path)
    held = run(engine, requests(4))
    assert held != free and not any(token in forbidden for answer in held.values() for token in answer)
    bias = tuple((token, 100.0) for token in forbidden)
    biased = run(engine, requests(4, logit_bias=bias))
    assert not any(token in forbidden for answer in biased.values() for token in answer)


def test_defaults_are_the_checkpoints(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 1}))
    assert GenerationDefaults.from_folder(tmp_path) == GenerationDefaults(frozenset({1}))
    said = {"eos_token_id": [1, 106, 50], "temperature": 0.5, "top_k": 64, "top_p": 0.95, "do_sample": True}
    (tmp_path / "generation_config.json").write_text(json.dumps(said))
    assert GenerationDefaults.from_folder(tmp_path) == GenerationDefaults(frozenset({1, 50, 106}), 0.5, 64, 0.95)
    (tmp_path / "generation_config.json").write_text(json.dumps(said | {"do_sample": False}))
    assert GenerationDefaults.from_folder(tmp_path).params().greedy
