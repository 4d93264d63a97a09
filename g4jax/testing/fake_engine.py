"""An engine without a model: it answers what a script says, at a speed of your choice."""

import time
from collections.abc import Callable, Sequence

from g4jax.engine.options import EngineOptions
from g4jax.engine.plan import Update
from g4jax.engine.request import Request
from g4jax.sample.params import InvalidParameter

Script = Callable[[Request], Sequence[int]]
"""The ids that a request is answered with; when they run out, the last one repeats until a limit ends it."""


def echo(request: Request) -> list[int]:
    """Says the prompt once and stops."""
    return [*request.prompt_ids, *sorted(request.stop_ids)[:1]]


class FakeEngine:
    """Has the shape of `g4jax.engine.engine.Engine`: same methods, same updates, same limits.

    tokens_per_step: tokens that a step gives to each request. step_s: how long a step takes. fail_after: the step that
    raises. Attributes for tests: `requests` (all that were ever added) and `aborted` (ids).
    """

    def __init__(
        self,
        script: Script = echo,
        *,
        max_model_len: int = 1024,
        max_batch: int = 64,
        tokens_per_step: int = 1,
        step_s: float = 0.0,
        fail_after: int | None = None,
    ):
        self.max_model_len = max_model_len
        self.max_batch = max_batch
        self.requests: list[Request] = []
        self.aborted: list[str] = []
        self._script = script
        self._tokens_per_step = tokens_per_step
        self._step_s = step_s
        self._fail_after = fail_after
        self._num_steps = 0
        self._running: dict[str, tuple[Request, Sequence[int]]] = {}
        self._seen_prompts: set[tuple[int, ...]] = set()

    @property
    def has_work(self) -> bool:
        return bool(self._running)

    def stats(self) -> dict[str, int]:
        return {"running": len(self._running), "waiting": 0}

    def add_request(self, request: Request) -> None:
        if len(request.prompt_ids) >= self.max_model_len:
            raise InvalidParameter("prompt_ids", f"{len(request.prompt_ids)} tokens, at most {self.max_model_len - 1}")
        prompt = tuple(request.prompt_ids)
        request.num_cached = len(prompt) - 1 if prompt in self._seen_prompts else 0
        self._seen_prompts.add(prompt)
        self.requests.append(request)
        self._running[request.id] = request, self._script(request)

    def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)
        self._running.pop(request_id, None)

    def step(self) -> list[Update]:
        """Gives every request its next tokens."""
        time.sleep(self._step_s)
        self._num_steps += 1
        if self._fail_after is not None and self._num_steps >= self._fail_after:
            raise RuntimeError("the fake engine was told to fail")
        updates = [self._advance(request, answer) for request, answer in list(self._running.values())]
        for update in updates:
            if update.finish_reason is not None:
                del self._running[update.request_id]
        return updates

    def _advance(self, request: Request, answer: Sequence[int]) -> Update:
        begin = len(request.output_ids)
        while request.finish_reason is None and len(request.output_ids) < begin + self._tokens_per_step:
            request.append(answer[min(len(request.output_ids), len(answer) - 1)], self.max_model_len)
        return Update(request.id, request.output_ids[begin:], request.finish_reason, request.stop_id)


def build_fake_engine(options: EngineOptions, progress: Callable[[str, int, int], None]) -> FakeEngine:
    """In place of `g4jax.engine.launch.build_engine`, also in a process of its own."""
    for done in (1, 2):
        progress("building the fake engine", done, 2)
    max_model_len, max_batch = options.max_model_len or 1024, options.max_batch or 64
    return FakeEngine(max_model_len=max_model_len, max_batch=max_batch, step_s=0.002)
