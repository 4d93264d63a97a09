"""The engine: requests in, tokens out. One `step` is one plan of the scheduler, run on the device."""

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
        """Runs the next plan. Empty where there is nothing to do or only a part of a prompt was run."""
        match self.scheduler.plan():
            case PrefillPlan() as plan:
                return self.scheduler.complete_prefill(plan, self.runner.prefill(plan))
            case DecodePlan() as plan:
                result = self.runner.start_decode(plan)
                self._prepare_masks(plan)
                return self.scheduler.complete_decode(plan, result())
        return []

    def flush_cache(self) -> None:
        """Forgets every prefix that could be used again."""
        self.scheduler.pages.forget()

    def _prepare_masks(self, plan: DecodePlan) -> None:
        """Asks the guides of requests that are not in the plan, while the device is busy with those that are."""
        for request in self.scheduler.guided():
            if request not in plan.requests:
                allowed(request, -(-self.runner.step.vocab_size // 32))

    def stats(self) -> SchedulerStats:
        return self.scheduler.stats()
