"""A device for scheduler tests: its K/V say which tokens they stand for, so that a wrong or stale page is seen."""

import zlib

from g4jax.engine.plan import DRAWN, DecodePlan, DecodeResult, MixedPlan, MixedResult, PrefillPlan, PrefillResult
from g4jax.engine.request import Request, TokenLogprobs
from g4jax.engine.scheduler import Scheduler

END = 0
VOCAB = 12
IMAGE = 99

Entry = tuple[bytes, tuple[int, ...]]


def next_token(tokens: list[int]) -> int:
    return zlib.crc32(bytes(tokens)) % VOCAB


def output_alone(request: Request, max_model_len: int) -> tuple[list[int], str]:
    """What the request must come to, whatever else is served."""
    tokens, output = list(request.prompt_ids), []
    most = min(request.params.max_tokens or max_model_len, max_model_len - len(tokens))
    while True:
        output.append(next_token(tokens + output))
        if output[-1] in request.stop_ids and len(output) >= request.params.min_tokens:
            return output, "stop"
        if len(output) == most:
            return output, "length"


class FakeDevice:
    def __init__(self, scheduler: Scheduler):
        self.scheduler = scheduler
        self.page_size, self.window = scheduler.pages.page_size, scheduler.pages.window
        self.sliding: dict[tuple[int, int], Entry] = {}
        self.full: dict[tuple[int, int], Entry] = {}
        self.left: dict[int, list[int]] = {}
        """By source: all tokens of a row of the last launch of each kind, those that the host does not know too."""

    def prefill(self, plan: PrefillPlan) -> PrefillResult:
        assert 0 < plan.num_tokens <= self.scheduler.max_prefill_tokens
        assert 0 < len(plan.pieces) <= self.scheduler.max_prefill_rows
        assert len({piece.request.id for piece in plan.pieces}) == len(plan.pieces)
        for piece in plan.pieces:
            assert piece.length > 0 and piece.end == piece.request.next_position
            for start, end in piece.request.spans:
                assert not start < piece.start < end and not start < piece.end < end, "an image is cut"
            for position in range(piece.start, piece.end):
                self._write(piece.request, piece.request.tokens, position)
        for piece in plan.pieces:
            for position in range(piece.start, piece.end):
                self._attend(piece.request, piece.request.tokens, position)
        tokens = {piece.request.id: next_token(piece.request.tokens) for piece in plan.pieces if piece.finishes}
        for row, piece in enumerate(plan.pieces):
            if piece.finishes:
                self.left[DRAWN + row] = [*piece.request.tokens, tokens[piece.request.id]]
        return PrefillResult(tokens, prompt_logprobs=self._scores(plan) if plan.scored else {})

    def _scores(self, plan: PrefillPlan) -> dict[str, list[TokenLogprobs]]:
        """The log probability of a token is minus its id."""
        assert all(piece.request.is_scored for piece in plan.pieces)
        assert plan.num_tokens <= self.scheduler.max_score_tokens
        following = {p.request.id: p.request.prompt_ids[p.start + 1 : p.end + 1] for p in plan.pieces}
        return {name: [TokenLogprobs(-float(t), [], []) for t in tokens] for name, tokens in following.items()}

    def mixed(self, plan: MixedPlan) -> MixedResult:
        """Both parts read what the launch before left, and neither may write where the other reads."""
        prompts, decoding = [piece.request for piece in plan.prefill.pieces], plan.decode.requests
        assert all(request.is_plain for request in (*prompts, *decoding))
        assert len({request.id for request in (*prompts, *decoding)}) == len(prompts) + len(decoding)
        decode = self._decode(plan.decode)
        rows = {row: self.left[row] for row in range(len(decoding))}
        prefill = self.prefill(plan.prefill)
        for row, request in enumerate(decoding):
            if decode.tokens[row] != [-1]:
                self._attend(request, rows[row], len(rows[row]) - 2)
        return MixedResult(prefill, decode)

    def decode(self, plan: DecodePlan) -> DecodeResult:
        assert plan.guided or not any(request.guide for request in plan.requests)
        assert plan.steps == (1 if plan.guided else self.scheduler.decode_steps)
        rows = zip(plan.requests, plan.sources, strict=True)
        assert plan.guided or not any(request.params.has_penalties and source >= 0 for request, source in rows)
        return self._decode(plan)

    def _decode(self, plan: DecodePlan) -> DecodeResult:
        assert 0 < len(plan.requests) <= self.scheduler.max_batch
        of_rows = zip(plan.requests, plan.sources, strict=True)
        tokens = [list(request.tokens if source < 0 else self.left[source]) for request, source in of_rows]
        drawn: list[list[int]] = [[] for _ in plan.requests]
        for step in range(plan.steps):
            for row, request in enumerate(plan.requests):
                left = plan.budgets[row] - step
                drawn[row].append(self._step(request, tokens[row], left) if left > 0 else -1)
        self.left = {source: left for source, left in self.left.items() if source >= DRAWN} | dict(enumerate(tokens))
        return DecodeResult(drawn, [[] for _ in drawn])

    def _step(self, request: Request, tokens: list[int], left: int) -> int:
        """One token of one row that may draw `left` more in this launch; -1 when it has ended."""
        output = len(tokens) - len(request.prompt_ids)
        if tokens[-1] in request.stop_ids and output >= max(1, request.params.min_tokens):
            return -1
        position = len(tokens) - 1
        assert output > 0 and position == request.next_position - left
        self._write(request, tokens, position)
        self._attend(request, tokens, position)
        tokens.append(next_token(tokens))
        return tokens[-1]

    def _entry(self, request: Request, tokens: list[int], position: int) -> Entry:
        """The K/V of a token depend on all before it, and inside an image on all of the image."""
        ends = [end for start, end in request.spans if start <= position < end]
        return request.cache_salt, tuple(tokens[: max([position + 1, *ends])])

    def _write(self, request: Request, tokens: list[int], position: int) -> None:
        page, offset = divmod(position, self.page_size)
        for store, pages in ((self.sliding, request.sliding_pages), (self.full, request.full_pages)):
            assert pages[page] > 0, f"position {position} has no page"
            store[pages[page], offset] = self._entry(request, tokens, position)

    def _attend(self, request: Request, tokens: list[int], position: int) -> None:
        for key in range(position + 1):
            page, offset = divmod(key, self.page_size)
            entry = self._entry(request, tokens, key)
            assert self.full[request.full_pages[page], offset] == entry, f"wrong content at {key}"
            if key > position - self.window:
                assert self.sliding[request.sliding_pages[page], offset] == entry, f"wrong sliding content at {key}"
