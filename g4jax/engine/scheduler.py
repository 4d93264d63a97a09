"""Which tokens of which requests run next, and what their results mean. Plain Python: no jax, no arrays.

Every plan is one launch: a ragged batch of prompt pieces, or `decode_steps` tokens for every request that decodes. The
two alternate while both are possible, and where many decode, one token of each goes with the prompts. Requests are
admitted in order of arrival. When a pool is exhausted, the running request that came last gives way: its pages are
freed, it waits at the front, and later prefills prompt and output again. So the oldest always advances and none is
lost.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from g4jax.cache.prefix import span_over
from g4jax.engine.paging import Paging
from g4jax.engine.plan import (
    DRAWN,
    DecodePlan,
    DecodeResult,
    MixedPlan,
    MixedResult,
    PrefillPiece,
    PrefillPlan,
    PrefillResult,
    SchedulerStats,
    Update,
)
from g4jax.engine.request import Request, TokenLogprobs
from g4jax.sample.params import InvalidParameter

__all__ = ["DecodePlan", "PrefillPiece", "PrefillPlan", "Scheduler", "SchedulerStats", "Update"]


class Scheduler:
    """Plans steps over two page pools.

    sliding_pages, full_pages: pages of each pool, page 0 included. page_size: tokens a page. window: tokens a sliding
    layer sees. max_batch: most requests running at once. max_prefill_tokens, max_prefill_rows: most tokens and pieces
    of a prefill plan; max_score_tokens: most tokens of one whose prompts are scored. decode_steps: tokens a row of a
    decode plan. max_model_len: most tokens of prompt and output together; it is lowered to what the full pool can hold.
    mixes_from: how many must decode for prompts to go with them in one plan; 0: never.
    """

    def __init__(
        self,
        *,
        sliding_pages: int,
        full_pages: int,
        page_size: int,
        window: int,
        max_model_len: int,
        max_batch: int,
        max_prefill_tokens: int,
        max_prefill_rows: int,
        max_score_tokens: int,
        decode_steps: int,
        mixes_from: int = 0,
    ):
        self.pages = Paging(sliding_pages=sliding_pages, full_pages=full_pages, page_size=page_size, window=window)
        # The last token of a request never gets K/V, hence one more.
        self.max_model_len = min(max_model_len, self.pages.full.capacity * page_size + 1)
        self.max_batch = max_batch
        self.max_prefill_tokens = max_prefill_tokens
        self.max_prefill_rows = max_prefill_rows
        self.max_score_tokens = max_score_tokens
        self.decode_steps = decode_steps
        self.mixes_from = mixes_from

        self._requests: dict[str, Request] = {}
        self._arrivals: dict[str, int] = {}
        self._waiting: deque[Request] = deque()
        self._prefilling: list[Request] = []
        self._decoding: list[Request] = []
        self._prefilled_last = False
        self._total_arrivals = self._total_preemptions = 0
        self._prompt_tokens = self._prefix_hit_tokens = 0
        self._check_sliding_pool()

    # Requests come and go.

    def add(self, request: Request) -> None:
        """Queue a request; InvalidParameter if it can never run."""
        self._check_request(request)
        self._requests[request.id] = request
        self._arrivals[request.id] = self._total_arrivals
        self._total_arrivals += 1
        self._waiting.append(request)

    def abort(self, request_id: str) -> bool:
        """Forget a request and free its pages at once, whatever its state. False if it is not here (any more)."""
        request = self._requests.get(request_id)
        if request is None:
            return False
        request.finish_reason = "abort"
        self._finish(request)
        return True

    @property
    def has_work(self) -> bool:
        return bool(self._requests)

    @property
    def num_running(self) -> int:
        return len(self._prefilling) + len(self._decoding)

    def stats(self) -> SchedulerStats:
        return SchedulerStats(
            running=self.num_running,
            waiting=len(self._waiting),
            sliding_pages_used=self.pages.sliding.used,
            sliding_pages_total=self.pages.sliding.capacity,
            full_pages_used=self.pages.full.used,
            full_pages_total=self.pages.full.capacity,
            prefix_hit_tokens=self._prefix_hit_tokens,
            prompt_tokens=self._prompt_tokens,
            preemptions=self._total_preemptions,
        )

    def check_integrity(self) -> None:
        """Raise AssertionError unless every page is accounted for and every request is in exactly one place."""
        self.pages.check_integrity(self._requests.values())
        queues = [*self._waiting, *self._prefilling, *self._decoding]
        assert sorted(request.id for request in queues) == sorted(self._requests) == sorted(self._arrivals)
        assert self.num_running <= self.max_batch
        assert list(self._waiting) == self._by_age(self._waiting)
        assert not any(request.full_pages for request in self._waiting)
        assert all(request.next_position < request.num_tokens for request in self._prefilling)
        assert all(request.num_drawn or request.num_computed == request.num_tokens - 1 for request in self._decoding)

    # Plans.

    def plan(self) -> PrefillPlan | DecodePlan | MixedPlan | None:
        """The next launch, None when there is no work. Hand its results to `complete_` and its kind."""
        first, second = self._plan_prefill, self._plan_decode
        if self._prefilled_last:
            first, second = second, first
        decoding = self._by_age(self._decoding)
        plan = first() or second()
        self._prefilled_last = isinstance(plan, PrefillPlan)
        return self._mixed(plan, decoding) if isinstance(plan, PrefillPlan) else plan

    def _plan_prefill(self) -> PrefillPlan | None:
        pieces: list[PrefillPiece] = []
        left = self.max_prefill_tokens
        for request in self._prefill_candidates():
            if not pieces:
                left = self.max_score_tokens if request.is_scored else self.max_prefill_tokens
            elif request.is_scored != pieces[0].request.is_scored or len(pieces) == self.max_prefill_rows or left == 0:
                break
            if request.status == "waiting" and not self._admit(request, left):
                break
            start, end = request.next_position, self._piece_end(request, left)
            if end > start and self._grow(request, end):
                pieces.append(PrefillPiece(request, start, end - start, request.num_preemptions))
                left -= end - start
        for row, piece in enumerate(pieces):
            self._prefill_is_under_way(row, piece)
        return PrefillPlan(tuple(pieces)) if pieces else None

    def _mixed(self, prefill: PrefillPlan, decoding: Sequence[Request]) -> PrefillPlan | MixedPlan:
        """The plan with one token of those that were `decoding` before it, if they are many.

        Nobody gives way for them: who did might have a piece in this very launch. They go on in the next.
        """
        if prefill.scored or not all(piece.request.is_plain for piece in prefill.pieces):
            return prefill
        # Whom the prompts made give way may have come back with a piece of its own.
        staying = {r.id for r in self._decoding} - {piece.request.id for piece in prefill.pieces}
        plain = [r for r in decoding if r.id in staying and r.is_plain and self._can_go_on(r)]
        if not 0 < self.mixes_from <= len(plain):
            return prefill
        rows = [(r, 1) for r in plain if self.pages.grow(r, r.next_position + 1)]
        return MixedPlan(prefill, self._decode_is_under_way(rows, 1)) if rows else prefill

    def _prefill_is_under_way(self, row: int, piece: PrefillPiece) -> None:
        request = piece.request
        request.num_planned += piece.length
        if piece.finishes:
            self._prefilling.remove(request)
            self._decoding.append(request)
            request.num_drawn, request.source = 1, DRAWN + row

    def _plan_decode(self) -> DecodePlan | None:
        """One token of each where a guide has a say in the next one of any."""
        decoding = self._by_age(self._decoding)
        guided = any(request.guide is not None for request in decoding)
        steps = 1 if guided else self.decode_steps
        ready = [r for r in decoding if self._can_go_on(r) and (guided or not r.waits_for_its_tokens)]
        rows: list[tuple[Request, int]] = []
        for request in ready:
            budget = min(steps, request.remaining(self.max_model_len))
            # One before it may have made it give way.
            if request.status == "running" and self._grow(request, request.next_position + budget):
                rows.append((request, budget))
        return self._decode_is_under_way(rows, steps, guided) if rows else None

    def _can_go_on(self, request: Request) -> bool:
        return request.remaining(self.max_model_len) > 0

    def _decode_is_under_way(self, rows: list[tuple[Request, int]], steps: int, guided: bool = False) -> DecodePlan:
        requests, budgets = zip(*rows, strict=True)
        sources = tuple(request.source if request.num_planned else -1 for request in requests)
        for row, (request, budget) in enumerate(rows):
            request.num_planned += budget
            request.num_drawn += budget
            request.source = row
        epochs = tuple(request.num_preemptions for request in requests)
        return DecodePlan(requests, steps, budgets, sources, epochs, guided)

    def _prefill_candidates(self) -> Iterator[Request]:
        """Those whose prompt is under way, oldest first, then the waiting while the batch has room."""
        for request in self._by_age(self._prefilling):
            if request.status == "running":  # one before it may have made it give way
                yield request
        while self._waiting and self.num_running < self.max_batch:
            yield self._waiting[0]

    def _piece_end(self, request: Request, left: int) -> int:
        """Where a piece of at most `left` tokens ends without cutting a span."""
        end = min(request.num_tokens, request.next_position + left)
        span = span_over(request.spans, end)
        return span[0] if span else end

    def _admit(self, request: Request, left: int) -> bool:
        """Move the head of the queue to the running, with what the prefix cache has of it, if all its tokens fit."""
        promised = [self._pages_promised(other) for other in self._running()]
        hit = 0 if request.is_scored else self.pages.reuse(request)
        full = self.pages.pages_short(request, request.num_tokens) + sum(promised)
        first_piece = self.pages.pages_short(request, self._piece_end(request, left))
        a_piece = self.pages.pages_for(self.max_prefill_tokens)
        sliding = first_piece + sum(min(pages, a_piece) for pages in promised)
        if full > self.pages.full.available or sliding > self.pages.sliding.available:
            self.pages.release(request)
            return False
        self._waiting.popleft()
        self._prefilling.append(request)
        request.status = "running"
        if request.num_preemptions == 0:
            request.num_cached = hit
            self._prefix_hit_tokens += hit
            self._prompt_tokens += request.num_tokens
        return True

    def _pages_promised(self, request: Request) -> int:
        """Pages a running request will ask for soon: newcomers that took them would only have to give way again."""
        return self.pages.pages_short(
            request,
            request.num_tokens + request.num_drawn + min(self.decode_steps, request.remaining(self.max_model_len)),
        )

    def _grow(self, request: Request, end: int) -> bool:
        """Pages for positions 0..end-1, if need be those of younger requests. False: it had to give way itself."""
        while not self.pages.grow(request, end):
            youngest = self._by_age(self._running())[-1]
            self._preempt(youngest)
            if youngest is request:
                return False
        return True

    def _preempt(self, request: Request) -> None:
        """What is under way for it is drawn again later, with the same result."""
        self._leave_queues(request)
        request.num_planned = request.num_drawn = 0
        self.pages.release(request)
        request.status = "waiting"
        request.num_preemptions += 1
        self._total_preemptions += 1
        self._waiting.appendleft(request)

    # Results.

    def complete_prefill(self, plan: PrefillPlan, result: PrefillResult) -> list[Update]:
        """Results come in the order of the plans, at most one of which may be planned ahead. Requests that were aborted
        or gave way meanwhile are passed over."""
        updates = []
        for piece in plan.pieces:
            request = piece.request
            if request.status != "running" or request.num_preemptions != piece.epoch:
                continue
            request.num_planned -= piece.length
            finishes = piece.finishes
            if piece.start == 0 and request.is_scored:
                request.prompt_logprobs = [None]
            request.prompt_logprobs += result.prompt_logprobs.get(request.id, [])
            self.pages.advance(request, piece.length)
            if finishes:
                request.num_drawn -= 1
                drawn, logprobs = [result.tokens[request.id]], result.logprobs.get(request.id, [])
                scored = request.prompt_logprobs if request.is_scored else None
                updates.append(self._take(request, drawn, logprobs, scored))
        return updates

    def complete_decode(self, plan: DecodePlan, result: DecodeResult) -> list[Update]:
        """As `complete_prefill`."""
        updates = []
        of_rows = zip(plan.requests, plan.budgets, plan.epochs, result.tokens, result.logprobs, strict=True)
        for request, budget, epoch, drawn, logprobs in of_rows:
            if request.status != "running" or request.num_preemptions != epoch:
                continue
            request.num_planned -= budget
            request.num_drawn -= budget
            update = self._take(request, drawn, logprobs)
            if update.token_ids:
                updates.append(update)
        return updates

    def complete_mixed(self, plan: MixedPlan, result: MixedResult) -> list[Update]:
        """As `complete_prefill`."""
        return self.complete_decode(plan.decode, result.decode) + self.complete_prefill(plan.prefill, result.prefill)

    def _take(
        self,
        request: Request,
        drawn: Sequence[int],
        logprobs: list[TokenLogprobs],
        scored: list[TokenLogprobs | None] | None = None,
    ) -> Update:
        """Append drawn tokens up to the one that ends the request; each but the first of a prompt computed one more."""
        taken = request.take(drawn, self.max_model_len)
        self.pages.advance(request, request.num_tokens - 1 - request.num_computed)
        if request.finish_reason is not None:
            self._finish(request)
        return Update(
            request.id,
            taken,
            request.finish_reason,
            request.stop_id,
            logprobs[: len(taken)],
            scored,
            request.error,
        )

    # Small steps.

    def _finish(self, request: Request) -> None:
        self._leave_queues(request)
        self.pages.release(request)
        request.status = "finished"
        del self._requests[request.id], self._arrivals[request.id]

    def _leave_queues(self, request: Request) -> None:
        for queue in (self._waiting, self._prefilling, self._decoding):
            if request in queue:
                queue.remove(request)

    def _running(self) -> list[Request]:
        return self._prefilling + self._decoding

    def _by_age(self, requests: Iterable[Request]) -> list[Request]:
        return sorted(requests, key=lambda request: self._arrivals[request.id])

    def _check_request(self, request: Request) -> None:
        if request.id in self._requests:
            raise InvalidParameter("id", f"request {request.id!r} is being served already; ids must differ")
        if not request.prompt_ids:
            raise InvalidParameter("prompt", "is empty, at least one token is needed")
        most = self.max_model_len - 1
        if len(request.prompt_ids) > most:
            raise InvalidParameter(
                "prompt",
                f"has {len(request.prompt_ids)} tokens, at most {most} fit (prompt and output share a context of "
                f"{self.max_model_len} tokens); shorten it",
            )
        longest = max((end - start for start, end in request.spans), default=0)
        if longest > self.max_prefill_tokens:
            raise InvalidParameter(
                "prompt",
                f"has an image of {longest} tokens, at most {self.max_prefill_tokens} can be read in one step; "
                "use a smaller image or a smaller token budget per image",
            )

    def _check_sliding_pool(self) -> None:
        most = 2 * max(self.max_prefill_tokens, self.decode_steps)  # of two launches, one of them under way
        need = min(self.pages.most_sliding_pages(most), self.pages.pages_for(self.max_model_len))
        if self.pages.sliding.capacity < need:
            raise ValueError(
                f"sliding_pages: {self.pages.sliding.num_pages} pages are too few for a window of {self.pages.window} "
                f"tokens and steps of {most}; give at least {need + 1} or lower max_prefill_tokens"
            )
