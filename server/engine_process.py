"""The engine process: takes requests from a connection, steps the engine, sends back what it made."""

import contextlib
import logging
import os
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

from g4jax.chat.tokenizer import Tokenizer
from g4jax.config import Gemma4Config
from g4jax.engine.options import EngineOptions, InvalidOption
from g4jax.engine.plan import SchedulerStats
from g4jax.engine.request import FinishReason, Request
from g4jax.guide.guide import Guide
from g4jax.guide.guides import Guides
from g4jax.guide.spec import GuideSpec
from g4jax.sample.defaults import GenerationDefaults
from server.messages import (
    Abort,
    Add,
    EngineInfo,
    Failed,
    FlushCache,
    Flushed,
    Progress,
    Ready,
    Refused,
    Shutdown,
    Stats,
    ToEngine,
    Update,
    Updates,
    encode,
)
from server.wire import receive

log = logging.getLogger("g4jax")

STATS_PERIOD_S = 0.5
"""How often a busy engine tells how it is doing."""


class StepUpdate(Protocol):
    """New tokens of one request, as the scheduler reports them."""

    request_id: str
    token_ids: list[int]
    finish_reason: FinishReason | None
    stop_id: int | None
    logprobs: list
    prompt_logprobs: list | None
    error: str | None


class Engine(Protocol):
    """What the loop needs of an engine."""

    max_model_len: int
    max_batch: int

    @property
    def has_work(self) -> bool: ...
    def add_request(self, request: Request) -> None: ...
    def abort(self, request_id: str) -> None: ...
    def step(self) -> list: ...
    def flush_cache(self) -> None: ...
    def stats(self) -> SchedulerStats: ...


ReportProgress = Callable[[str, int, int], None]
Builder = Callable[[EngineOptions, ReportProgress], Engine]


def build_engine(options: EngineOptions, progress: ReportProgress) -> Engine:
    """The real engine; jax is imported here and nowhere earlier."""
    from g4jax.engine.launch import build_engine, programs_folder

    return build_engine(options, progress, kept=programs_folder())


def run_engine(conn: Connection, options: EngineOptions, build: Builder, log_level: str) -> None:
    """The main function of the engine process. Returns when told to, or when the HTTP process has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes; the HTTP process says when to end.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("g4jax").setLevel(log_level.upper())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with _reported(conn):
        guides = make_guides(options)
        engine = build(options, lambda text, done, total: conn.send_bytes(encode(Progress(text, done, total))))
        conn.send_bytes(encode(Ready(EngineInfo(engine.max_model_len, engine.max_batch, options))))
        serve(conn, engine, guides)


def make_guides(options: EngineOptions) -> Guides | None:
    """Reads the vocabulary now, not in the middle of somebody's answer. None where the folder has no tokenizer."""
    folder = Path(options.model)
    if not (folder / "tokenizer.json").exists():
        return None
    tokenizer = Tokenizer(folder)
    vocab_size = Gemma4Config.from_folder(folder).text.vocab_size
    stop_ids = tokenizer.stop_ids | GenerationDefaults.from_folder(folder).stop_ids
    guides = Guides(tokenizer, vocab_size, stop_ids)
    guides.start(GuideSpec())
    return guides


def serve(conn: Connection, engine: Engine, guides: Guides | None = None) -> None:
    """Runs the engine until the other end says Shutdown or goes away; a failure is told before it ends."""
    with _reported(conn):
        EngineLoop(conn, engine, guides).run()


class EngineLoop:
    """Drain the messages, step, send; sleeps in `poll` when there is nothing to do."""

    def __init__(self, conn: Connection, engine: Engine, guides: Guides | None):
        self._conn = conn
        self._arrivals = select.poll()  # A connection's own `poll` makes a new one of these each time.
        self._arrivals.register(conn.fileno(), select.POLLIN)
        self._engine = engine
        self._guides = guides
        self._requests: dict[str, Request] = {}
        self._stats: SchedulerStats | None = None
        self._stats_due_s = 0.0

    def run(self) -> None:
        self._report_stats()
        while self._drain():
            if self._engine.has_work:
                self._send(self._engine.step())
            self._report_stats()

    def _drain(self) -> bool:
        """Handle everything that has arrived; False when it is time to end."""
        timeout_ms = 0 if self._engine.has_work else None
        try:
            while self._arrivals.poll(timeout_ms):
                message = receive(self._conn)
                if isinstance(message, Shutdown):
                    return False
                self._handle(message)
                timeout_ms = 0
        except EOFError:
            return False
        return True

    def _handle(self, message: ToEngine) -> None:
        if isinstance(message, Add):
            self._add(message)
        elif isinstance(message, Abort) and self._requests.pop(message.id, None):
            self._engine.abort(message.id)
        elif isinstance(message, FlushCache):
            self._engine.flush_cache()
            self._conn.send_bytes(encode(Flushed()))

    def _add(self, message: Add) -> None:
        stop_ids, salt = frozenset(message.stop_ids), message.cache_salt.encode()
        try:
            request = Request(
                message.id,
                message.prompt_ids,
                message.params,
                stop_ids,
                cache_salt=salt,
                guide=self._guide(message),
                media=tuple(data.placed() for data in message.media),
            )
            self._engine.add_request(request)
        except ValueError as error:
            self._conn.send_bytes(encode(Refused(message.id, str(error))))
        else:
            self._requests[message.id] = request

    def _guide(self, message: Add) -> Guide | None:
        if message.guide is None:
            return None
        if self._guides is None:
            raise ValueError("this engine has no tokenizer, so it cannot constrain an answer")
        return self._guides.start(message.guide)

    def _send(self, updates: list[StepUpdate]) -> None:
        items = [self._message(update) for update in updates if update.request_id in self._requests]
        if items:
            self._conn.send_bytes(encode(Updates(items)))

    def _report_stats(self) -> None:
        """Sends the engine's statistics where they are new: now and then, and always before it falls asleep."""
        now_s = time.monotonic()
        if self._engine.has_work and now_s < self._stats_due_s:
            return
        self._stats_due_s = now_s + STATS_PERIOD_S
        stats = self._engine.stats()
        if stats != self._stats:
            self._stats = stats
            self._conn.send_bytes(encode(Stats(stats, time.process_time())))

    def _message(self, update: StepUpdate) -> Update:
        request = self._requests[update.request_id]
        if update.finish_reason is not None:
            del self._requests[update.request_id]
        return Update(
            request.id,
            update.token_ids,
            update.finish_reason,
            update.stop_id,
            request.num_cached,
            update.logprobs,
            update.prompt_logprobs,
            update.error,
        )


def _die_with_parent() -> None:
    """No orphan: end at once when the HTTP process is gone, even in the middle of a compilation."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@contextlib.contextmanager
def _reported(conn: Connection) -> Iterator[None]:
    try:
        yield
    except (BrokenPipeError, ConnectionResetError):
        log.info("the HTTP process has gone")
    except Exception as error:
        failure = _failure(error)
        if not failure.by_user:
            log.error("the engine failed:\n%s", traceback.format_exc())
        conn.send_bytes(encode(failure))


def _failure(error: Exception) -> Failed:
    if isinstance(error, InvalidOption):
        return Failed(error.message, True, error.field)
    # Our own kinds of ValueError say what was asked wrongly; any other is a fault of the program.
    ours = isinstance(error, ValueError) and type(error).__module__.startswith("g4jax.")
    return Failed(str(error) or type(error).__name__, by_user=ours)
