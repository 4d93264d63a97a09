import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from g4jax.engine.plan import (
    DecodePlan,
    DecodeResult,
    MixedPlan,
    MixedResult,
    PrefillPlan,
    PrefillResult,
    Update,
)
from g4jax.engine.request import Request
from g4jax.engine.scheduler import Scheduler
from g4jax.sample.params import InvalidParameter, SamplingParams
from tests.engine.fake_device import END, IMAGE, FakeDevice, output_alone

COMMON = random.Random(0).choices(range(1, 10), k=40)


def make_scheduler(**changes) -> Scheduler:
    sizes = dict(sliding_pages=20, full_pages=20, page_size=4, window=6, max_model_len=40, max_batch=3)
    limits = dict(max_prefill_tokens=8, max_prefill_rows=2, max_score_tokens=4, decode_steps=3)
    return Scheduler(**(sizes | limits | changes))


def make_request(name: str, prompt: list[int], spans=(), salt=b"", **params) -> Request:
    return Request(name, prompt, SamplingParams(**params), frozenset({END}), spans, salt)


Launch = tuple[PrefillPlan, PrefillResult] | tuple[DecodePlan, DecodeResult] | tuple[MixedPlan, MixedResult]


def launch(scheduler: Scheduler, device: FakeDevice) -> Launch | None:
    """Plan and run; None when there is nothing to do."""
    match scheduler.plan():
        case None:
            return None
        case PrefillPlan() as plan:
            return plan, device.prefill(plan)
        case DecodePlan() as plan:
            return plan, device.decode(plan)
        case MixedPlan() as plan:
            return plan, device.mixed(plan)


def complete(scheduler: Scheduler, launched: Launch) -> list[Update]:
    plan, result = launched
    kinds = {
        PrefillPlan: scheduler.complete_prefill,
        DecodePlan: scheduler.complete_decode,
        MixedPlan: scheduler.complete_mixed,
    }
    return kinds[type(plan)](plan, result)


def run_step(scheduler: Scheduler, device: FakeDevice, *, meanwhile=lambda: None) -> list[Update] | None:
    """Plan, run, complete; `meanwhile` happens while the device is busy. None when there was nothing to do."""
    launched = launch(scheduler, device)
    if launched is None:
        return None
    meanwhile()
    return complete(scheduler, launched)


def run_to_end(scheduler: Scheduler, device: FakeDevice) -> list[Update]:
    updates = []
    for _ in range(1000):
        step = run_step(scheduler, device)
        if step is None:
            break
        updates += step
        scheduler.check_integrity()
    assert not scheduler.has_work
    return updates


@st.composite
def prompts(draw, limit: int, longest_span: int):
    """A prompt that often begins like others, perhaps with an image in it."""
    shared = draw(st.integers(0, limit))
    prompt = COMMON[:shared] + draw(st.lists(st.integers(1, 9), min_size=0 if shared else 1, max_size=limit - shared))
    start, length = draw(st.sampled_from([2, 5, 9])), draw(st.integers(0, longest_span))
    if length == 0 or start + length > len(prompt):
        return prompt, ()
    prompt[start : start + length] = [IMAGE] * length
    return prompt, ((start, start + length),)


class OneByOne:
    """A guide that wants to see every token before the next, and refuses `refused`."""

    asks = None

    def __init__(self, refused: int = -1):
        self.error, self.seen, self._refused = None, [], refused

    def complete(self, row) -> None:
        row[:] = 1

    def accept(self, token_id: int) -> None:
        self.seen.append(token_id)
        self.error = "refused" if token_id == self._refused else None


class SchedulerMachine(RuleBasedStateMachine):
    """Arrivals, aborts (also of what the device is running) and steps, in any order, over pools that are too small."""

    @initialize(
        page_size=st.sampled_from([1, 3, 4]),
        window=st.integers(1, 9),
        tokens=st.integers(2, 9),
        steps=st.integers(1, 5),
        spare=st.integers(0, 6),
        full=st.integers(4, 30),
        mixes_from=st.integers(0, 2),
    )
    def start(self, page_size, window, tokens, steps, spare, full, mixes_from):
        least = -(-(window - 1 + 2 * max(tokens, steps)) // page_size) + 2
        self.scheduler = make_scheduler(
            sliding_pages=least + spare,
            full_pages=full,
            page_size=page_size,
            window=window,
            max_prefill_tokens=tokens,
            decode_steps=steps,
            mixes_from=mixes_from,
        )
        self.device = FakeDevice(self.scheduler)
        self.requests: dict[str, Request] = {}
        self.given: dict[str, list[int]] = {}
        self.ended: dict[str, str] = {}
        self.under_way: Launch | None = None

    @rule(
        data=st.data(),
        most=st.integers(1, 20) | st.none(),
        least=st.sampled_from([0, 0, 0, 1, 4]),
        salt=st.sampled_from([b"", b"s"]),
        asks=st.sampled_from(["", "", "penalty", "guide"]),
    )
    def add(self, data, most, least, salt, asks):
        limit = self.scheduler.max_model_len - 1
        prompt, spans = data.draw(prompts(limit, min(5, self.scheduler.max_prefill_tokens)))
        name = f"r{len(self.requests)}"
        least = 0 if asks == "guide" else min(least, most or least)  # a guide may end an answer before
        penalty = 1.0 if asks == "penalty" else 0.0
        request = make_request(name, prompt, spans, salt, max_tokens=most, min_tokens=least, presence_penalty=penalty)
        request.guide = OneByOne() if asks == "guide" else None
        self.requests[name] = request
        self.given[name] = []
        self.scheduler.add(self.requests[name])

    @precondition(lambda self: self.scheduler.has_work)
    @rule(data=st.data())
    def abort(self, data):
        name = data.draw(st.sampled_from([name for name in self.requests if name not in self.ended]))
        assert self.scheduler.abort(name) and not self.scheduler.abort(name)
        self.ended[name] = "abort"

    @precondition(lambda self: self.scheduler.has_work)
    @rule(data=st.data(), aborts=st.sampled_from([False, False, False, True]), ahead=st.booleans())
    def step(self, data, aborts, ahead):
        """Launches, and completes the launch before; the new one too unless the next is to be planned `ahead` of it."""
        launched, before = launch(self.scheduler, self.device), self.under_way
        assert launched or before, "there is work but no plan"
        if aborts:
            self.abort(data)
        self.under_way = None
        if before:
            self.take(complete(self.scheduler, before))
        if launched and ahead:
            self.under_way = launched
        elif launched:
            self.take(complete(self.scheduler, launched))

    def take(self, updates: list[Update]):
        for update in updates:
            assert update.request_id not in self.ended, "an update after the end"
            self.given[update.request_id] += update.token_ids
            if update.finish_reason:
                self.ended[update.request_id] = update.finish_reason

    @invariant()
    def books_agree(self):
        if hasattr(self, "scheduler"):
            self.scheduler.check_integrity()

    def teardown(self):
        if not hasattr(self, "scheduler"):
            return
        if self.under_way:
            self.take(complete(self.scheduler, self.under_way))
        self.take(run_to_end(self.scheduler, self.device))
        stats = self.scheduler.stats()
        assert (stats.running, stats.waiting, stats.sliding_pages_used, stats.full_pages_used) == (0, 0, 0, 0)
        for name, request in self.requests.items():
            output, reason = output_alone(request, self.scheduler.max_model_len)
            assert self.given[name] == request.output_ids and request.status == "finished"
            assert self.ended[name] == request.finish_reason
            if isinstance(request.guide, OneByOne):
                assert request.guide.seen == [token for token in self.given[name] if token != END]
            if self.ended[name] == "abort":
                assert output[: len(self.given[name])] == self.given[name]
            else:
                assert (self.given[name], self.ended[name]) == (output, reason)


SchedulerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestScheduler = SchedulerMachine.TestCase


def test_prefill_and_decode_alternate():
    scheduler = make_scheduler(max_batch=2)
    device = FakeDevice(scheduler)
    scheduler.add(make_request("a", [1, 2, 3], max_tokens=30, ignore_eos=True))
    run_step(scheduler, device)
    scheduler.add(make_request("b", COMMON[:24], max_tokens=4))
    kinds = []
    for _ in range(5):
        plan = scheduler.plan()
        kinds.append(type(plan))
        if isinstance(plan, PrefillPlan):
            scheduler.complete_prefill(plan, device.prefill(plan))
        elif isinstance(plan, DecodePlan):
            scheduler.complete_decode(plan, device.decode(plan))
    assert kinds == [DecodePlan, PrefillPlan, DecodePlan, PrefillPlan, DecodePlan]


def mixed_scheduler(*others: Request, **changes) -> tuple[Scheduler, FakeDevice]:
    """Two requests that decode, and `others` that have just come."""
    scheduler = make_scheduler(max_batch=4, mixes_from=2, **changes)
    device = FakeDevice(scheduler)
    for name, prompt in (("a", [1, 2, 3]), ("b", [4, 5, 6])):
        scheduler.add(make_request(name, prompt, max_tokens=25, ignore_eos=True))
    run_step(scheduler, device)
    run_step(scheduler, device)
    for request in others:
        scheduler.add(request)
    return scheduler, device


def test_prompts_go_with_those_that_decode():
    scheduler, device = mixed_scheduler(make_request("c", COMMON[:14], max_tokens=9))
    launched = launch(scheduler, device)
    assert launched is not None and isinstance(launched[0], MixedPlan)
    plan = launched[0]
    assert [piece.request.id for piece in plan.prefill.pieces] == ["c"]
    assert [request.id for request in plan.decode.requests] == ["a", "b"] and plan.decode.steps == 1
    # The next launch goes on from tokens of both parts that the host does not know yet.
    following = launch(scheduler, device)
    assert following is not None and isinstance(following[0], DecodePlan) and following[0].sources == (0, 1)
    complete(scheduler, launched)
    complete(scheduler, following)
    run_to_end(scheduler, device)


@pytest.mark.parametrize("asked", [{"logprobs": 0}, {"prompt_logprobs": 0}, {"presence_penalty": 1.0}])
def test_prompts_that_ask_for_more_than_a_draw_go_alone(asked):
    scheduler, device = mixed_scheduler(make_request("c", [7, 8], max_tokens=3, **asked))
    assert isinstance(scheduler.plan(), PrefillPlan)


def test_the_next_turn_of_a_conversation_computes_only_what_is_new():
    scheduler = make_scheduler(max_model_len=80, full_pages=40)
    device = FakeDevice(scheduler)
    first = make_request("first", COMMON[:21], max_tokens=10, ignore_eos=True)
    scheduler.add(first)
    run_to_end(scheduler, device)
    second = make_request("second", first.tokens + [3, 4], max_tokens=1)
    scheduler.add(second)
    plan = scheduler.plan()
    assert isinstance(plan, PrefillPlan)
    assert second.num_cached == 28 and plan.pieces[0].start == 28
    assert second.sliding_pages[:5] == [0] * 5 and all(second.sliding_pages[5:])
    assert scheduler.stats().prefix_hit_tokens == 28


def test_a_repeated_prompt_still_computes_its_last_token():
    scheduler = make_scheduler()
    device = FakeDevice(scheduler)
    for name in "ab":
        request = make_request(name, COMMON[:8], max_tokens=1)
        scheduler.add(request)
        run_to_end(scheduler, device)
    assert request.num_cached == 4


def test_sliding_pages_are_bounded_by_the_window():
    scheduler = make_scheduler(max_model_len=200, full_pages=60, sliding_pages=8)
    device = FakeDevice(scheduler)
    scheduler.add(make_request("a", COMMON, max_tokens=100, ignore_eos=True))
    run_to_end(scheduler, device)
    assert scheduler.stats().preemptions == 0


def test_the_youngest_gives_way_and_comes_back():
    scheduler = make_scheduler(full_pages=10)
    device = FakeDevice(scheduler)
    requests = [make_request(name, COMMON[n : n + 8], max_tokens=24, ignore_eos=True) for n, name in enumerate("abc")]
    for request in requests:
        scheduler.add(request)
    updates = run_to_end(scheduler, device)
    ends = [update.request_id for update in updates if update.finish_reason]
    assert ends == ["a", "b", "c"]
    assert [request.num_preemptions > 0 for request in requests] == [False, True, True]
    assert scheduler.stats().preemptions == sum(request.num_preemptions for request in requests)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (make_request("a", []), "prompt: is empty"),
        (make_request("a", [1] * 40), "has 40 tokens, at most 39 fit"),
        (make_request("a", [IMAGE] * 9, spans=((0, 9),)), "an image of 9 tokens, at most 8"),
        (make_request("here", [1]), "'here' is being served already"),
    ],
)
def test_what_can_never_run_is_refused(request_, message):
    scheduler = make_scheduler()
    scheduler.add(make_request("here", [1]))
    with pytest.raises(InvalidParameter, match=message):
        scheduler.add(request_)
    assert scheduler.stats().waiting == 1


def test_the_context_is_no_longer_than_the_pool():
    scheduler = make_scheduler(full_pages=6)
    assert scheduler.max_model_len == 21
    with pytest.raises(InvalidParameter, match="has 21 tokens, at most 20 fit"):
        scheduler.add(make_request("a", [1] * 21))
    request = make_request("b", COMMON[:20])
    scheduler.add(request)
    run_to_end(scheduler, FakeDevice(scheduler))
    assert len(request.output_ids) == 1


def test_a_sliding_pool_too_small_for_one_step_is_refused():
    with pytest.raises(ValueError, match="sliding_pages: 7 pages are too few .* give at least 8"):
        make_scheduler(sliding_pages=7)


def test_a_stop_id_beyond_those_the_device_knows_ends_the_request_on_the_host():
    scheduler = make_scheduler()
    request = make_request("a", [1, 2], stop_token_ids=(7,), max_tokens=9)
    scheduler.add(request)
    plan = scheduler.plan()
    assert isinstance(plan, PrefillPlan)
    scheduler.complete_prefill(plan, PrefillResult({"a": 5}))
    plan = scheduler.plan()
    assert isinstance(plan, DecodePlan)
    assert scheduler.complete_decode(plan, DecodeResult([[6, 7, 8]], [[]])) == [Update("a", [6, 7], "stop", 7)]
    scheduler.check_integrity()


def guided(name: str, prompt: list[int], guide: OneByOne, **params) -> Request:
    return Request(name, prompt, SamplingParams(**params), frozenset({END}), guide=guide)


def test_a_guide_sees_every_token_and_without_it_the_others_take_long_steps():
    scheduler = make_scheduler()
    device = FakeDevice(scheduler)
    guide = OneByOne()
    scheduler.add(guided("g", [1, 2], guide, max_tokens=6, ignore_eos=True))
    scheduler.add(make_request("p", [3, 4], max_tokens=12, ignore_eos=True))
    updates = run_to_end(scheduler, device)
    by_guide = [update.token_ids for update in updates if update.request_id == "g"]
    assert [len(ids) for ids in by_guide] == [1] * 6 and guide.seen == [i for ids in by_guide for i in ids]
    assert max(len(update.token_ids) for update in updates if update.request_id == "p") == scheduler.decode_steps
    for name, prompt, tokens in (("g", [1, 2], 6), ("p", [3, 4], 12)):
        request = make_request(name, prompt, max_tokens=tokens, ignore_eos=True)
        want = output_alone(request, scheduler.max_model_len)[0]
        assert [i for update in updates if update.request_id == name for i in update.token_ids] == want


def test_a_dead_end_of_a_guide_ends_its_request_alone():
    scheduler = make_scheduler()
    device = FakeDevice(scheduler)
    refused = output_alone(make_request("g", [1, 2], max_tokens=6, ignore_eos=True), 40)[0][2]
    scheduler.add(guided("g", [1, 2], OneByOne(refused), max_tokens=6, ignore_eos=True))
    scheduler.add(make_request("p", [3, 4], max_tokens=12, ignore_eos=True))
    last = {update.request_id: update for update in run_to_end(scheduler, device)}
    assert (last["g"].finish_reason, last["g"].error) == ("error", "refused")
    assert last["p"].finish_reason == "length" and last["p"].error is None
    scheduler.check_integrity()


def test_scores_cover_the_whole_prompt_whatever_is_cached():
    scheduler = make_scheduler()
    device = FakeDevice(scheduler)
    prompt = [5, 4, 3, 2, 1, 2, 3, 4, 5, 6, 7]
    scheduler.add(make_request("first", prompt, max_tokens=2, ignore_eos=True))
    run_to_end(scheduler, device)
    scheduler.add(make_request("scored", prompt, max_tokens=1, prompt_logprobs=0))
    scheduler.add(make_request("other", prompt[:6], max_tokens=1))
    updates = {update.request_id: update for update in run_to_end(scheduler, device)}
    told = updates["scored"].prompt_logprobs
    assert told[0] is None and [-entry.logprob for entry in told[1:]] == prompt[1:]
    assert updates["other"].prompt_logprobs is None
