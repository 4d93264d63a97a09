"""One request as the engine sees it: tokens in, tokens out, and the cache pages it holds. No jax."""

import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from g4jax.guide.masks import Asking
from g4jax.media.inputs import PlacedInput
from g4jax.sample.params import SamplingParams

Status = Literal["waiting", "running", "finished"]
FinishReason = Literal["stop", "length", "abort", "error"]


class TokenLogprobs(NamedTuple):
    """Natural log probabilities of a token and of the likeliest in its place, best first."""

    logprob: float
    top_ids: list[int]
    top_logprobs: list[float]


@runtime_checkable
class Guide(Asking, Protocol):
    """Says which token may come next; see `g4jax.guide`."""

    error: str | None

    def accept(self, token_id: int) -> None: ...


@dataclass(eq=False)
class Request:
    """A prompt, its sampling parameters, and its state; the scheduler alone changes the state.

    stop_ids: given as the model's own end ids; kept as the ids that end *this* request, that is with
        `params.stop_token_ids` and, under `params.ignore_eos`, without the model's.
    spans: image runs [start, end) of the prompt that attend both ways, in order; empty on causal models. The scheduler
        never cuts one. The engine sets them.
    cache_salt: requests share cached pages only under the same salt.
    guide: what the output must look like; it is told of every token.
    media: what fills the prompt's placeholders, in order.
    tokens: prompt_ids + output_ids. content: the same, with what fills a placeholder in its place: equal content has
        equal K/V. num_computed: how many of them have their K/V in the cache. num_cached: prompt
        tokens found in the prefix cache when the request was first admitted.
    num_planned, num_drawn: tokens that launches under way compute and draw, whose results are not known yet. source:
        where the last of these launches leaves its token on the device.
    sliding_pages, full_pages: logical page index -> physical page; 0 = given back.
    seed: uint32, drawn here when `params.seed` is None.
    """

    id: str
    prompt_ids: list[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    stop_ids: frozenset[int] = frozenset()
    spans: tuple[tuple[int, int], ...] = ()
    cache_salt: bytes = b""
    guide: Guide | None = None
    media: tuple[PlacedInput, ...] = ()

    seed: int = field(init=False)
    tokens: list[int] = field(init=False)
    content: list[int] = field(init=False)
    output_ids: list[int] = field(init=False, default_factory=list)
    status: Status = field(init=False, default="waiting")
    finish_reason: FinishReason | None = field(init=False, default=None)
    stop_id: int | None = field(init=False, default=None)
    error: str | None = field(init=False, default=None)
    prompt_logprobs: list[TokenLogprobs | None] = field(init=False, default_factory=list)
    said: Any = field(init=False, default=None)
    """Its tokens so far, counted (`said_inputs`); None until they are asked for."""

    num_computed: int = field(init=False, default=0)
    num_planned: int = field(init=False, default=0)
    num_drawn: int = field(init=False, default=0)
    source: int = field(init=False, default=-1)
    num_cached: int = field(init=False, default=0)
    num_preemptions: int = field(init=False, default=0)
    sliding_pages: list[int] = field(init=False, default_factory=list)
    full_pages: list[int] = field(init=False, default_factory=list)
    page_keys: list[bytes] = field(init=False, default_factory=list)
    """The prefix-cache key of each full page of `tokens` hashed so far."""

    def __post_init__(self):
        self.tokens = list(self.prompt_ids)
        self.content = _content(self.prompt_ids, self.media)
        own = frozenset() if self.params.ignore_eos else self.stop_ids
        self.stop_ids = own | frozenset(self.params.stop_token_ids)
        self.seed = secrets.randbits(32) if self.params.seed is None else self.params.seed & 0xFFFFFFFF

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def is_scored(self) -> bool:
        """The log probabilities of the prompt are still to be told."""
        return self.params.prompt_logprobs is not None and not self.output_ids

    @property
    def next_position(self) -> int:
        """The first position that no launch has computed yet."""
        return self.num_computed + self.num_planned

    @property
    def waits_for_its_tokens(self) -> bool:
        """It has penalties, and what they count is under way."""
        return self.num_planned > 0 and self.params.has_penalties

    @property
    def is_plain(self) -> bool:
        """Its tokens are drawn from the model's own logits, and nothing is told of them."""
        return self.guide is None and not self.params.is_shaped

    def remaining(self, max_model_len: int) -> int:
        """How many more tokens launches may draw under `max_tokens` and the length of the context."""
        return self._room(max_model_len) - self.num_drawn

    def _room(self, max_model_len: int) -> int:
        room = max_model_len - self.num_tokens
        if self.params.max_tokens is None:
            return room
        return min(room, self.params.max_tokens - len(self.output_ids))

    def take(self, drawn: Sequence[int], max_model_len: int) -> list[int]:
        """Takes drawn tokens up to the one that ends the request (-1 is none) and returns those; sets `finish_reason`
        (and `stop_id`) where the last is among them."""
        taken = list(drawn[: drawn.index(-1)] if -1 in drawn else drawn)[: self._room(max_model_len)]
        stop = self._first_stop(taken)
        if stop is not None:
            self.finish_reason, self.stop_id = "stop", taken[stop]
            del taken[stop + 1 :]
        self.output_ids += taken
        self.tokens += taken
        self.content += taken
        if stop is None and self._room(max_model_len) <= 0:
            self.finish_reason = "length"
        if self.guide is not None:
            self._tell_guide(taken)
        return taken

    def _first_stop(self, taken: list[int]) -> int | None:
        """Where the first stop id is that may end the request."""
        if self.stop_ids.isdisjoint(taken):
            return None
        # Under a guide an end comes before min_tokens only where nothing else could.
        early = 0 if self.guide is not None else max(0, self.params.min_tokens - len(self.output_ids) - 1)
        return next((i for i in range(early, len(taken)) if taken[i] in self.stop_ids), None)

    def _tell_guide(self, taken: list[int]) -> None:
        assert self.guide is not None
        for token in taken:
            if token != self.stop_id:
                self.guide.accept(token)
        # Where nothing may follow, the mask is empty and whatever was drawn means nothing, a stop id too.
        if self.guide.error is not None:
            self.finish_reason, self.error = "error", self.guide.error


def _content(prompt_ids: list[int], media: tuple[PlacedInput, ...]) -> list[int]:
    """The two halves of an input's digest, in turns, in place of its placeholders."""
    content = list(prompt_ids)
    for placed in media:
        halves = struct.unpack("<qq", placed.input.digest)
        content[placed.start : placed.end] = [halves[i % 2] for i in range(placed.input.num_tokens)]
    return content
