"""The HTTP process's end of the connection to the engine."""

import asyncio
import logging
import multiprocessing
import os
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import msgspec

from g4jax.engine.options import EngineOptions
from g4jax.engine.plan import SchedulerStats
from server.engine_process import Builder, build_engine, run_engine
from server.messages import (
    Abort,
    Add,
    EngineInfo,
    Failed,
    FlushCache,
    Flushed,
    FromEngine,
    Progress,
    Ready,
    Refused,
    Shutdown,
    Stats,
    ToEngine,
    Update,
    Updates,
    decode_from_engine,
)
from server.wire import send

log = logging.getLogger("g4jax")


class EngineDied(Exception):
    """The engine process has ended; no request can be served."""


class RequestRefused(Exception):
    """The engine cannot serve this request."""


class RequestAborted(Exception):
    """The request was ended by somebody else than its client."""


class EngineClient:
    """Sends requests to the engine and hands out what comes back.

    The event loop reads the connection itself: a message holds a whole engine step and is there at once. A thread
    writes, so that a long prompt never stops the event loop while the engine is in a step.

    Attributes:
      info: what the engine came up with; None until it is ready.
      stats: how its scheduler was doing lately; None until it tells.
      cpu_seconds: what processor time it had used then.
      progress: the last word of the start.
      failure: why the engine is dead; None while it lives.
      on_change: called on the event loop when `info`, `progress` or `failure` changes.
    """

    def __init__(self, conn: Connection, process: BaseProcess | None = None):
        self.info: EngineInfo | None = None
        self.stats: SchedulerStats | None = None
        self.cpu_seconds = 0.0
        self.progress: Progress | None = None
        self.failure: Failed | None = None
        self.on_change: Callable[[], None] = lambda: None
        self._conn = conn
        self._process = process
        self._outbox: queue.SimpleQueue[ToEngine | None] = queue.SimpleQueue()
        self._open: dict[str, asyncio.Queue[Update | Exception]] = {}
        self._flushes: deque[asyncio.Future[None]] = deque()
        self._closing = False

    @classmethod
    def spawn(cls, options: EngineOptions, build: Builder = build_engine, log_level: str = "info") -> "EngineClient":
        """Starts the engine in a process of its own."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=run_engine, args=(theirs, options, build, log_level), name="g4jax-engine", daemon=True
        )
        process.start()
        theirs.close()  # The engine then holds the only other end, so its death ends our reading.
        return cls(ours, process)

    def start(self) -> None:
        """Begins to read and write; call it on the event loop that serves the requests."""
        asyncio.get_running_loop().add_reader(self._conn.fileno(), self._read)
        os.set_blocking(self._conn.fileno(), True)  # It is read and written message by message; uvloop unsets it.
        threading.Thread(target=self._write, name="engine-writer", daemon=True).start()

    async def generate(self, *requests: Add) -> AsyncGenerator[Update, None]:
        """Runs the requests together and yields their updates as they come, tokens that wait merged per request.

        Close the iterator (`contextlib.aclosing`) to abort what still runs; `abort` one id to go on with the others.

        Raises:
          EngineDied: the engine has ended.
          RequestRefused: the engine cannot serve one of the requests.
          RequestAborted: `end_answer` was called for them.
        """
        if self.failure is not None:
            raise EngineDied(self.failure.message)
        inbox: asyncio.Queue[Update | Exception] = asyncio.Queue()
        try:
            for request in requests:
                self._open[request.id] = inbox
                self._outbox.put(request)
            while not inbox.empty() or any(request.id in self._open for request in requests):
                for update in await _arrived(inbox):
                    if update.id not in self._open:
                        continue
                    if update.finish_reason is not None:
                        del self._open[update.id]
                    yield update
        finally:
            for request in requests:
                self.abort(request.id)

    def abort(self, request_id: str) -> None:
        """Stops a request; does nothing for one that has ended."""
        if self._open.pop(request_id, None) is not None:
            self._outbox.put(Abort(request_id))

    @property
    def num_open(self) -> int:
        """Requests that have not ended, be they running or waiting."""
        return len(self._open)

    def end_answer(self, answer_id: str | None) -> bool:
        """Stops the requests of an answer, or all; whoever waits for them is told. False where there is none."""
        ids = [each for each in self._open if answer_id is None or each.rpartition("-")[0] == answer_id]
        for inbox in {self._open[each] for each in ids}:
            inbox.put_nowait(RequestAborted())
        for each in ids:
            self.abort(each)
        return bool(ids)

    async def flush_cache(self) -> None:
        """Returns when the engine has forgotten every prefix that it could use again.

        Raises:
          EngineDied: the engine has ended.
        """
        if self.failure is not None:
            raise EngineDied(self.failure.message)
        done = asyncio.get_running_loop().create_future()
        self._flushes.append(done)
        self._outbox.put(FlushCache())
        await done

    def end_requests(self, reason: str) -> None:
        """Fails what is running and all that comes: the server is about to end."""
        self._closing = True
        self._fail(Failed(reason))

    def close(self, grace_s: float = 5.0) -> None:
        """Ends the engine process: asks, waits `grace_s`, then insists. While it still loads it does not listen."""
        self._closing = True
        self._outbox.put(Shutdown())
        self._outbox.put(None)
        if self._process is None:
            return
        self._process.join(grace_s if self.info is not None else 0)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(1.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _write(self) -> None:
        while (message := self._outbox.get()) is not None:
            try:
                send(self._conn, message)
            except OSError:
                return  # The reader sees the same end and tells everybody.

    def _read(self) -> None:
        """On the event loop, when something has arrived."""
        try:
            message = decode_from_engine(self._conn.recv_bytes())
        except (EOFError, OSError, msgspec.MsgspecError) as error:
            asyncio.get_running_loop().remove_reader(self._conn.fileno())
            message = Failed(self._cause_of_death(error))
        self._deliver(message)

    def _cause_of_death(self, error: Exception) -> str:
        if isinstance(error, msgspec.MsgspecError):
            return f"a message of the engine cannot be read: {error}"
        if self._process is None or self._closing:  # `close` waits for the process itself.
            return "the engine process has ended"
        self._process.join(1.0)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"the engine process was killed by signal {-code}"
        return f"the engine process has ended with exit code {code}"

    def _deliver(self, message: FromEngine) -> None:
        match message:
            case Updates():
                for update in message.items:
                    if (inbox := self._open.get(update.id)) is not None:
                        inbox.put_nowait(update)
                return
            case Refused():
                if (inbox := self._open.pop(message.id, None)) is not None:
                    inbox.put_nowait(RequestRefused(message.message))
                return
            case Stats():
                self.stats, self.cpu_seconds = message.stats, message.cpu_seconds
                return
            case Flushed():
                if not (flush := self._flushes.popleft()).done():
                    flush.set_result(None)
                return
            case Ready():
                self.info = message.info
            case Progress():
                self.progress = message
            case Failed():
                self._fail(message)
        self.on_change()

    def _fail(self, failure: Failed) -> None:
        if self.failure is None:  # The first word names the cause; the end of the connection follows it.
            self.failure = failure
            if not self._closing:
                log.error("engine: %s", failure.message)
        for inbox in set(self._open.values()):
            inbox.put_nowait(EngineDied(self.failure.message))
        self._open.clear()
        while self._flushes:
            if not (flush := self._flushes.popleft()).done():
                flush.set_exception(EngineDied(self.failure.message))


async def _arrived(inbox: asyncio.Queue[Update | Exception]) -> list[Update]:
    """Waits for an update, takes all that are there, and merges those of the same request."""
    merged: dict[str, Update] = {}
    item = await inbox.get()
    while True:
        if isinstance(item, Exception):
            raise item
        earlier = merged.get(item.id)
        merged[item.id] = item if earlier is None else _joined(earlier, item)
        if inbox.empty():
            return list(merged.values())
        item = inbox.get_nowait()


def _joined(first: Update, second: Update) -> Update:
    return Update(
        first.id,
        first.token_ids + second.token_ids,
        second.finish_reason,
        second.stop_id,
        second.cached_tokens,
        first.logprobs + second.logprobs,
        first.prompt_logprobs if first.prompt_logprobs is not None else second.prompt_logprobs,
        second.error,
    )
