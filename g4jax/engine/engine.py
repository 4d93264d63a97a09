"""The engine: requests in, tokens out. One `step` launches one plan of the scheduler."""

from collections.abc import Callable
from typing import Any

from g4jax.engine.plan import DecodePlan, MixedPlan, PrefillPlan, SchedulerStats, Update
from g4jax.engine.request import Request
from g4jax.engine.runner import Runner
from g4jax.engine.scheduler import Scheduler
from g4jax.sample.params import InvalidParameter

Plan = PrefillPlan | DecodePlan | MixedPlan


class Engine:
    """Not thread-safe: one thread adds, steps and aborts.

    sees_both_ways: the tokens of an image attend to each other, and not only to those before them.

    Attributes:
        max_model_len: tokens that a request may have, prompt and answer together.
        max_batch: requests that decode together.
    """

    def __init__(self, runner: Runner, scheduler: Scheduler, *, sees_both_ways: bool = False):
        self.runner, self.scheduler = runner, scheduler
        self.sees_both_ways = sees_both_ways
        self.max_model_len = scheduler.max_model_len
        self.max_batch = scheduler.max_batch
        self._under_way: tuple[Plan, Callable[[], Any]] | None = None

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def add_request(self, request: Request) -> None:
        """Raises InvalidParameter where the request can never be run."""
        self._check_media(request)
        if self.sees_both_ways:
            request.spans = tuple((p.start, p.end) for p in request.media if p.input.kind != "audio")
        self.scheduler.add(request)

    def _check_media(self, request: Request) -> None:
        if request.media and self.runner.encoder is None:
            raise InvalidParameter("media", "this model takes text alone: leave images and sounds out")

    def abort(self, request_id: str) -> None:
        """Ends a request at once; unknown and finished ones are ignored."""
        self.scheduler.abort(request_id)

    def step(self) -> list[Update]:
        """Launches the next plan, waits for the one before, and launches what of the next had to wait for that: the
        host works while the device does.

        Empty where nothing is known yet, or only a part of a prompt was run.
        """
        before, self._under_way = self._under_way, None
        if before is not None and self._is_all_there_is(before[0]):
            # Launching takes the host milliseconds: first tokens do not wait where nobody profits from an early start.
            return self._complete(*before)
        plan = self.scheduler.plan()
        draw = None if plan is None else self.runner.start(plan)
        updates = [] if before is None else self._complete(*before)
        if plan is not None and draw is not None:
            self._under_way = (plan, draw())
        return updates

    def flush_cache(self) -> None:
        """Forgets every prefix, image and sound that could be used again."""
        self.scheduler.pages.forget()
        if self.runner.encoder is not None:
            self.runner.encoder.forget()

    def _is_all_there_is(self, plan: Plan) -> bool:
        """Every running request has the end of its prompt in the plan, and nobody waits."""
        if not isinstance(plan, PrefillPlan) or not all(piece.finishes for piece in plan.pieces):
            return False
        stats = self.scheduler.stats()
        return len(plan.pieces) == stats.running and not stats.waiting

    def _complete(self, plan: Plan, result: Callable[[], Any]) -> list[Update]:
        match plan:
            case PrefillPlan():
                return self.scheduler.complete_prefill(plan, result())
            case DecodePlan():
                return self.scheduler.complete_decode(plan, result())
            case MixedPlan():
                return self.scheduler.complete_mixed(plan, result())

    def stats(self) -> SchedulerStats:
        return self.scheduler.stats()
