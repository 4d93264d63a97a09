"""What the scheduler asks the device to run, and what came of it. No jax."""

from dataclasses import dataclass

from g4jax.engine.request import FinishReason, Request


@dataclass(frozen=True)
class PrefillPiece:
    """Run tokens[start : start + length] of a request."""

    request: Request
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length

    @property
    def finishes(self) -> bool:
        """The piece reaches the last token: the request gets a token sampled from it."""
        return self.end == self.request.num_tokens


@dataclass(frozen=True)
class PrefillPlan:
    pieces: tuple[PrefillPiece, ...]

    @property
    def num_tokens(self) -> int:
        return sum(piece.length for piece in self.pieces)


@dataclass(frozen=True)
class DecodePlan:
    """Up to `budgets[i]` (1..steps) tokens for requests[i]; pages for the K/V written meanwhile are allocated.

    Each request starts with num_computed == num_tokens - 1.
    """

    requests: tuple[Request, ...]
    steps: int
    budgets: tuple[int, ...]


@dataclass(frozen=True)
class Update:
    """New output of one request. The stop id that ended it, if one did, is the last of `token_ids`."""

    request_id: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    stop_id: int | None = None


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
