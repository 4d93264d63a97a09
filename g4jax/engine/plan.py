"""What the scheduler asks the device to run, and what came of it. No jax."""

from dataclasses import dataclass, field

from g4jax.engine.request import FinishReason, Request, TokenLogprobs
from g4jax.media.inputs import PlacedInput

DRAWN = 1 << 20


@dataclass(frozen=True)
class PrefillPiece:
    """Run tokens[start : start + length] of a request. `epoch`: its preemptions when this was planned."""

    request: Request
    start: int
    length: int
    epoch: int = 0

    @property
    def end(self) -> int:
        return self.start + self.length

    @property
    def finishes(self) -> bool:
        """The piece reaches the last token: the request gets a token sampled from it."""
        return self.end == self.request.num_tokens

    @property
    def media(self) -> list[PlacedInput]:
        """What fills placeholders of this piece."""
        return [placed for placed in self.request.media if placed.start < self.end and self.start < placed.end]


@dataclass(frozen=True)
class PrefillPlan:
    """Pieces that run together. `scored`: the log probabilities of their prompts' tokens are wanted, of all of them."""

    pieces: tuple[PrefillPiece, ...]

    @property
    def scored(self) -> bool:
        return self.pieces[0].request.is_scored

    @property
    def num_tokens(self) -> int:
        return sum(piece.length for piece in self.pieces)


@dataclass(frozen=True)
class DecodePlan:
    """Up to `budgets[i]` (1..steps) tokens for requests[i]; pages for the K/V written meanwhile are allocated.

    sources: where a row's first token lies on the device (-1: it is the last of its `tokens`): row i of the decode
    launch before, or `DRAWN` + row i of the prefill launch before. guided: one step, whose tokens are drawn when the
    host knows those before; without, the host knows them already of every request with penalties.
    """

    requests: tuple[Request, ...]
    steps: int
    budgets: tuple[int, ...]
    sources: tuple[int, ...]
    epochs: tuple[int, ...]
    guided: bool = False


@dataclass(frozen=True)
class MixedPlan:
    """Prompt pieces, and one token for each of many requests that decode: the weights are read once for both.

    None of the requests asks for more than a draw.
    """

    prefill: PrefillPlan
    decode: DecodePlan


@dataclass(frozen=True)
class PrefillResult:
    """Of each request that was finished: the token drawn, and its log probabilities ([] where nobody asks).

    prompt_logprobs: of each request of a scored plan, those of the tokens behind each of its piece.
    """

    tokens: dict[str, int]
    logprobs: dict[str, list[TokenLogprobs]] = field(default_factory=dict)
    prompt_logprobs: dict[str, list[TokenLogprobs]] = field(default_factory=dict)


@dataclass(frozen=True)
class DecodeResult:
    """Of each request of the plan the drawn tokens, -1 from where the device stopped the row, and their log
    probabilities."""

    tokens: list[list[int]]
    logprobs: list[list[TokenLogprobs]]


@dataclass(frozen=True)
class MixedResult:
    """Of both parts of a `MixedPlan`."""

    prefill: PrefillResult
    decode: DecodeResult


@dataclass(frozen=True)
class Update:
    """New output of one request. The stop id that ended it, if one did, is the last of `token_ids`.

    logprobs: one per token, where the request asks for them. prompt_logprobs: once, those of the whole prompt; the
    first token has none. error: what made the finish reason "error".
    """

    request_id: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    stop_id: int | None = None
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    error: str | None = None


@dataclass(frozen=True)
class SchedulerStats:
    """`prefix_hit_tokens` of the `prompt_tokens` admitted so far were found in the prefix cache."""

    running: int
    waiting: int
    sliding_pages_used: int
    sliding_pages_total: int
    full_pages_used: int
    full_pages_total: int
    prefix_hit_tokens: int
    prompt_tokens: int
    preemptions: int
