"""What the HTTP process and the engine process say to each other, as msgpack over one connection."""

from typing import Any

import msgspec
import numpy as np

from g4jax.engine.options import EngineOptions
from g4jax.engine.plan import SchedulerStats
from g4jax.engine.request import FinishReason, TokenLogprobs
from g4jax.guide.spec import GuideSpec
from g4jax.media.inputs import MediaKind, PlacedInput, SoftInput
from g4jax.sample.params import SamplingParams


class MediaData(msgspec.Struct, frozen=True, array_like=True, eq=False):
    """A `PlacedInput`. Of its array a message says shape and dtype; wire.py sends the bytes."""

    start: int
    kind: MediaKind
    grid: tuple[int, int]
    num_tokens: int
    digest: bytes
    data: np.ndarray

    @classmethod
    def of(cls, placed: PlacedInput) -> "MediaData":
        given = placed.input
        data = np.ascontiguousarray(given.data)
        return cls(placed.start, given.kind, given.grid, given.num_tokens, given.digest, data)

    def placed(self) -> PlacedInput:
        return PlacedInput(self.start, SoftInput(self.kind, self.data, self.grid, self.num_tokens, self.digest))


class Add(msgspec.Struct, frozen=True, tag="add"):
    """A new request. `stop_ids` are the model's own end tokens; those of the client are in `params`.

    cache_salt: cached pages are shared only under the same one. media: what fills the prompt's placeholders, in order.
    """

    id: str
    prompt_ids: list[int]
    params: SamplingParams
    stop_ids: list[int] = []
    guide: GuideSpec | None = None
    cache_salt: str = ""
    media: list[MediaData] = []


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """Nobody waits for this request any more."""

    id: str


class FlushCache(msgspec.Struct, frozen=True, tag="flush_cache"):
    """Forget every prefix that could be used again; `Flushed` answers."""


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """The engine process shall end."""


class EngineInfo(msgspec.Struct, frozen=True):
    """What the engine came up with, and the options it was given. `max_model_len` counts prompt and answer tokens."""

    max_model_len: int
    max_batch: int
    options: EngineOptions


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Everything is loaded and compiled."""

    info: EngineInfo


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """How far the start is: `done` of `total` steps of the stage `text`."""

    text: str
    done: int
    total: int


class Update(msgspec.Struct, frozen=True, array_like=True):
    """New tokens of one request. `stop_id` is the end token that was met; it is also the last of `token_ids`.

    logprobs: one per token, where the request asks for them. prompt_logprobs: those of the whole prompt, once; the
    first token has none. error: why the answer cannot go on, with the finish reason "error".
    """

    id: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    stop_id: int | None = None
    cached_tokens: int = 0
    logprobs: list[TokenLogprobs] = []
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    error: str | None = None


class Updates(msgspec.Struct, frozen=True, tag="updates"):
    """All that one engine step made."""

    items: list[Update]


class Stats(msgspec.Struct, frozen=True, tag="stats"):
    """How the scheduler and its cache are doing; sent now and then, and when the engine becomes idle.

    cpu_seconds: processor time of the engine's process since it began.
    """

    stats: SchedulerStats
    cpu_seconds: float = 0.0


class Flushed(msgspec.Struct, frozen=True, tag="flushed"):
    """The answer to one `FlushCache`."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The engine cannot serve this request at all."""

    id: str
    message: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The engine process is about to end.

    `by_user`: the message tells what to do better; `option` names the EngineOptions field at fault, if the message
    does not say it.
    """

    message: str
    by_user: bool = False
    option: str | None = None


ToEngine = Add | Abort | FlushCache | Shutdown
FromEngine = Ready | Progress | Updates | Stats | Flushed | Refused | Failed


def _outline(array: Any) -> tuple[tuple[int, ...], str]:
    if not isinstance(array, np.ndarray):
        raise NotImplementedError(f"a {type(array).__name__} cannot be sent")
    return array.shape, array.dtype.name


def _room(kind: type, outline: tuple[list[int], str]) -> np.ndarray:
    """Whose bytes are still to come."""
    if kind is not np.ndarray:
        raise NotImplementedError(f"a {kind.__name__} cannot be received")
    return np.empty(*outline)


encode = msgspec.msgpack.Encoder(enc_hook=_outline).encode
decode_to_engine = msgspec.msgpack.Decoder(ToEngine, dec_hook=_room).decode
decode_from_engine = msgspec.msgpack.Decoder(FromEngine).decode
