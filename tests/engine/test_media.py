"""Images and sounds through the engine: encoded once, never mistaken for another, whole in every piece."""

import dataclasses

import numpy as np
import pytest

from g4jax.engine.encoder_batch import launches
from g4jax.engine.engine import Engine
from g4jax.engine.request import Request
from g4jax.engine.soft_slots import SoftSlots
from g4jax.media.inputs import PlacedInput, SoftInput
from g4jax.sample.params import InvalidParameter, SamplingParams
from g4jax.testing.checkpoints import write_checkpoint
from g4jax.testing.configs import tiny
from tests.engine.tiny_engine import build, run, write_wandering
from tests.parity.media_reference import prompt


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("e2b")
    write_wandering(folder, "e2b", encoders=True)
    return folder


@pytest.fixture(scope="module")
def engine(folder) -> Engine:
    return build(folder)


def asked(name: str, media: tuple[PlacedInput, ...] | None = None, **params) -> Request:
    ids, own = prompt("e2b")
    return Request(
        name, list(ids), SamplingParams(**{"temperature": 0.0, "max_tokens": 8} | params), media=media or own
    )


def other_image(placed: PlacedInput, seed: int = 1) -> PlacedInput:
    """Other pixels in the same place."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, placed.input.data.shape).astype(np.uint8)
    return PlacedInput(placed.start, dataclasses.replace(placed.input, data=pixels, digest=rng.bytes(16)))


def test_an_image_that_comes_again_is_not_encoded_again(engine):
    engine.flush_cache()
    encoder = engine.runner.encoder
    before, media = encoder.num_runs, prompt("e2b")[1]
    first = run(engine, [asked("a")])["a"]
    assert encoder.num_runs == before + len(media)
    assert run(engine, [asked("b")])["b"] == first
    # Without the keys of the prompt too: the soft tokens are still there.
    engine.scheduler.pages.forget()
    assert run(engine, [asked("c")])["c"] == first
    assert encoder.num_runs == before + len(media)
    engine.flush_cache()
    assert run(engine, [asked("d")])["d"] == first
    assert encoder.num_runs == before + 2 * len(media)


def test_a_prefix_is_reused_up_to_the_first_other_image(engine):
    engine.flush_cache()
    media = prompt("e2b")[1]
    same, other = asked("same"), asked("other", (media[0], other_image(media[1]), *media[2:]))
    run(engine, [asked("first")])
    run(engine, [same])
    run(engine, [other])
    assert same.num_cached >= media[-1].start
    assert media[0].end <= other.num_cached <= media[1].start


def test_other_pixels_give_other_answers_and_mixing_requests_changes_none(engine):
    media = prompt("e2b")[1]
    names = [str(number) for number in range(6)]
    several = [(other_image(media[0], seed), *media[1:]) for seed in range(len(names))]
    alone = {}
    for name, each in zip(names, several, strict=True):
        engine.flush_cache()
        alone |= run(engine, [asked(name, each, logprobs=0)])
    engine.flush_cache()
    together = run(engine, [asked(name, each, logprobs=0) for name, each in zip(names, several, strict=True)])
    assert together == alone
    assert len({tuple(tokens) for tokens in alone.values()}) > 1


def test_scores_of_a_prompt_with_an_image(engine):
    request = asked("scored", prompt_logprobs=0, max_tokens=1)
    engine.add_request(request)
    updates = []
    while engine.has_work:
        updates += engine.step()
    (scores,) = [update.prompt_logprobs for update in updates if update.prompt_logprobs]
    assert len(scores) == len(request.prompt_ids) and scores[0] is None
    assert all(np.isfinite(entry.logprob) for entry in scores[1:])


@pytest.mark.parametrize("variant", ["31b", "12b"])
def test_pieces_never_cut_an_image_that_is_seen_both_ways(variant, tmp_path):
    write_wandering(tmp_path, variant, encoders=True)
    ids, media = prompt(variant)
    answers = set()
    for most in (7, 16, 64):
        engine = build(tmp_path, max_prefill_tokens=most)
        request = Request("a", list(ids), SamplingParams(temperature=0.0, max_tokens=8), media=media)
        answers.add(tuple(run(engine, [request])["a"]))
        assert request.spans == tuple((p.start, p.end) for p in media if p.input.kind != "audio")
    assert len(answers) == 1
    engine = build(tmp_path, max_prefill_tokens=4)
    with pytest.raises(InvalidParameter, match="an image of 6 tokens, at most 4"):
        engine.add_request(Request("b", list(ids), media=media))


def test_on_two_devices(folder, engine):
    engine.flush_cache()
    assert run(build(folder, mesh="tp=2"), [asked("a")]) == run(engine, [asked("a")])


def test_a_model_without_encoders_refuses_media(tmp_path):
    write_checkpoint(tmp_path, tiny("e2b"), dtype=np.float32)
    with pytest.raises(InvalidParameter, match="takes text alone"):
        build(tmp_path).add_request(asked("a"))


def test_slots_forget_what_was_not_used_for_the_longest_time():
    slots = SoftSlots(10)
    one, two = (slots.take(name, 4, keep=()) for name in (b"1", b"2"))
    assert set(one) | set(two) == set(range(8))
    assert slots.find(b"1") is one
    three = slots.take(b"3", 5, keep={b"1"})
    assert slots.find(b"2") is None and slots.find(b"1") is one and set(three).isdisjoint(one)
    with pytest.raises(ValueError, match="2 soft tokens do not fit"):
        slots.take(b"4", 2, keep={b"1", b"3"})
    slots.forget()
    assert slots.find(b"1") is None and sorted(slots.take(b"5", 10, keep=())) == list(range(10))


def test_images_go_together_as_far_as_they_fit():
    def piece(kind, tokens):
        return SoftInput(kind, np.zeros((0, 768), np.uint8), (1, tokens), tokens, bytes(16)), np.arange(tokens)

    several = [piece("image", 264)] * 5 + [piece("audio", 20)] * 2 + [piece("video", 66)] * 3 + [piece("image", 900)]
    sizes = [(each.key, len(each.inputs)) for each in launches(several)]
    heard, seen = [(("hear", 128), 1)] * 2, [(("see", 70, 4), 3), (("see", 280, 4), 4), (("see", 280, 1), 1)]
    assert sizes == [*heard, *seen, (("see", 1120, 1), 1)]
