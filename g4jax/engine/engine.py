"""The engine: requests in, tokens out. One `step` launches one plan of the scheduler."""

from collections.abc import Callable
from typing import Any

from g4jax.engine.draw_inputs import allowed
from g4jax.engine.plan import DecodePlan, PrefillPlan, SchedulerStats, Update
from g4jax.engine.request import Request
from g4jax.engine.runner import Runner
from g4jax.engine.scheduler import Scheduler


class Engine:
    """Not thread-safe: one thread adds, steps and aborts.

    Attributes:
        max_model_len: tokens that a request may have, prompt and answer together.
        max_batch: requests that decode together.
    """

    def __init__(self, runner: Runner, scheduler: Scheduler):
        self.runner, self.scheduler = runner, scheduler
        self.max_model_len = scheduler.max_model_len
        self.max_batch = scheduler.max_batch
        self._under_way: tuple[PrefillPlan | DecodePlan, Callable[[], Any]] | None = None

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def add_request(self, request: Request) -> None:
        """Raises InvalidParameter where the request can never be run."""
        self.scheduler.add(request)

    def abort(self, request_id: str) -> None:
        """Ends a request at once; unknown and finished ones are ignored."""
        self.scheduler.abort(request_id)

    def step(self) -> list[Update]:
        """Launches the next plan, then waits for the one before: the host works while the device does.

        Empty where nothing is known yet, or only a part of a prompt was run.
        """
        plan, before = self.scheduler.plan(), self._under_way
        self._under_way = None if plan is None else (plan, self.runner.start(plan))
        if plan is not None:
            self._prepare_masks()
        if before is None:
            return []
        done, result = before
        if isinstance(done, PrefillPlan):
            return self.scheduler.complete_prefill(done, result())
        return self.scheduler.complete_decode(done, result())

    def flush_cache(self) -> None:
        """Forgets every prefix that could be used again."""
        self.scheduler.pages.forget()

    def _prepare_masks(self) -> None:
        """Asks the guides of requests that are not under way, while the device is busy with those that are."""
        for request in self.scheduler.guided():
            allowed(request, -(-self.runner.step.vocab_size // 32))

    def stats(self) -> SchedulerStats:
        return self.scheduler.stats()
