"""An engine without a model: it answers what a script says, at a speed of your choice."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from g4jax.engine.options import EngineOptions
from g4jax.engine.plan import SchedulerStats, Update
from g4jax.engine.request import Request, TokenLogprobs
from g4jax.guide.masks import fill_masks
from g4jax.sample.params import InvalidParameter

Script = Callable[[Request], Sequence[int]]
"""The ids that a request is answered with; when they run out, the last one repeats until a limit ends it."""

DEAD_END = -1
"""In a script: the answer cannot go on from here."""


def echo(request: Request) -> list[int]:
    """Says the prompt once and stops."""
    return [*request.prompt_ids, *sorted(request.stop_ids)[:1]]


def made_up_logprobs(token: int, position: int, num_top: int, vocab_size: int) -> TokenLogprobs:
    """The token is the likeliest one, but at every third position impossible; the ids above it come next."""
    others = [(token + k) % vocab_size for k in range(1, num_top + 1)]
    likely = position % 3 != 2
    top_ids = [token, *others][:num_top] if likely else others
    return TokenLogprobs(-0.25 if likely else -math.inf, top_ids, [-0.25 - k for k in range(num_top)])


@dataclass
class _Running:
    """`cursor`: how much of the answer has been said or, under a guide, passed over."""

    request: Request
    answer: Sequence[int]
    cursor: int = 0


class FakeEngine:
    """Has the shape of `g4jax.engine.engine.Engine`: same methods, same updates, same limits.

    A request with a guide leaves out of its answer what the guide does not allow. Log probabilities are made up.

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
        vocab_size: int = 512,
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
        self._vocab_size = vocab_size
        self._running: dict[str, _Running] = {}
        self._seen_prompts: set[tuple[int, ...]] = set()

    @property
    def has_work(self) -> bool:
        return bool(self._running)

    def flush_cache(self) -> None:
        """Forgets the prompts seen so far."""
        self._seen_prompts.clear()

    def stats(self) -> SchedulerStats:
        """Every request runs and holds one page of each pool."""
        running = len(self._running)
        return SchedulerStats(
            running=running,
            waiting=0,
            sliding_pages_used=running,
            sliding_pages_total=self.max_batch,
            full_pages_used=running,
            full_pages_total=self.max_batch,
            prefix_hit_tokens=sum(request.num_cached for request in self.requests),
            prompt_tokens=sum(len(request.prompt_ids) for request in self.requests),
            preemptions=0,
        )

    def add_request(self, request: Request) -> None:
        if len(request.prompt_ids) >= self.max_model_len:
            raise InvalidParameter("prompt_ids", f"{len(request.prompt_ids)} tokens, at most {self.max_model_len - 1}")
        prompt = tuple(request.prompt_ids)
        request.num_cached = len(prompt) - 1 if prompt in self._seen_prompts else 0
        self._seen_prompts.add(prompt)
        self.requests.append(request)
        self._running[request.id] = _Running(request, self._script(request))

    def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)
        self._running.pop(request_id, None)

    def step(self) -> list[Update]:
        """Gives every request its next tokens."""
        time.sleep(self._step_s)
        self._num_steps += 1
        if self._fail_after is not None and self._num_steps >= self._fail_after:
            raise RuntimeError("the fake engine was told to fail")
        updates = [self._advance(running) for running in list(self._running.values())]
        for update in updates:
            if update.finish_reason is not None:
                del self._running[update.request_id]
        return updates

    def _advance(self, running: _Running) -> Update:
        request = running.request
        begin = len(request.output_ids)
        while request.finish_reason is None and len(request.output_ids) < begin + self._tokens_per_step:
            token = self._next(running)
            if token == DEAD_END:
                request.finish_reason, request.error = "error", "nothing may follow"
            else:
                request.take([token], self.max_model_len)
        return Update(
            request.id,
            request.output_ids[begin:],
            request.finish_reason,
            request.stop_id,
            self._logprobs(request, request.output_ids[begin:], len(request.prompt_ids) + begin),
            self._prompt_logprobs(request) if begin == 0 else None,
            request.error,
        )

    def _next(self, running: _Running) -> int:
        """What the script says next; of a guide that allows nothing of the rest, the first token that it does."""
        running.cursor += 1
        guide = running.request.guide
        if guide is None:
            return running.answer[min(running.cursor, len(running.answer)) - 1]
        mask = np.zeros(-(-self._vocab_size // 32), np.uint32)
        fill_masks([guide], mask[None])
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
        for at in range(running.cursor - 1, len(running.answer)):
            if running.answer[at] in allowed:
                running.cursor = at + 1
                return running.answer[at]
        return int(allowed[0]) if allowed.size else DEAD_END

    def _logprobs(self, request: Request, ids: Sequence[int], position: int) -> list[TokenLogprobs]:
        num_top = request.params.logprobs
        if num_top is None:
            return []
        return [made_up_logprobs(token, at, num_top, self._vocab_size) for at, token in enumerate(ids, position)]

    def _prompt_logprobs(self, request: Request) -> list[TokenLogprobs | None] | None:
        num_top = request.params.prompt_logprobs
        if num_top is None:
            return None
        told = [made_up_logprobs(token, at, num_top, self._vocab_size) for at, token in enumerate(request.prompt_ids)]
        return [None, *told[1:]]


def build_fake_engine(options: EngineOptions, progress: Callable[[str, int, int], None]) -> FakeEngine:
    """In place of `g4jax.engine.launch.build_engine`, also in a process of its own."""
    for done in (1, 2):
        progress("building the fake engine", done, 2)
    max_model_len, max_batch = options.max_model_len or 1024, options.max_batch or 64
    return FakeEngine(max_model_len=max_model_len, max_batch=max_batch, step_s=0.002)
