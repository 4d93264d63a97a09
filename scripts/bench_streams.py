"""How many chunks a second the HTTP process streams, whatever the model: the engine gives a fixed text at a fixed pace.

    python -m scripts.bench_streams [--streams 100] [--rates 5000,20000,50000] [--seconds 5]

Three processes, as in service: this one reads, the HTTP process parses and streams, the engine process gives one token
to every stream in each step, `rate` tokens a second for all streams together. An event with content is a chunk. Tokens
that wait are merged into one chunk: fewer chunks than tokens mean that the HTTP process cannot follow.

Prints for each rate the tokens and the chunks received a second, the processor share of the HTTP process, and the time
between two reads of a stream. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import httpx
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from g4jax.chat.tokenizer import Tokenizer
from g4jax.engine.options import EngineOptions
from g4jax.engine.plan import Update
from g4jax.testing.fake_engine import FakeEngine
from server.cli import main as serve

WANTED = 5000
"""Chunks a second over 100 streams on two processor cores."""

TEXT = "The server reads what the engine writes, and sends it on, word by word, to everybody who waits for it. "
CONTENT = b'"content":"'
"""What an event with content holds and no other."""

WARM_S = 1.0
START_S = 60.0


@dataclass(frozen=True)
class Row:
    offered_per_s: int
    tokens_per_s: float
    chunks_per_s: float
    http_cpu_percent: float
    gap_ms_p50: float
    gap_ms_p99: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--rates", default="5000,20000,50000", help="tokens a second, all streams together")
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    print(f"{given.streams} streams, {os.cpu_count()} processors; wanted: {WANTED} chunks/s")
    print("offered tok/s    tok/s  chunks/s  HTTP cpu %  gap ms p50     p99")
    rows = [measured(given.streams, int(rate), given.seconds) for rate in given.rates.split(",")]
    best = max(row.chunks_per_s for row in rows)
    print(json.dumps({"streams": given.streams, "wanted": WANTED, "best": best, "rows": [asdict(row) for row in rows]}))


def measured(streams: int, rate: int, seconds: float) -> Row:
    """Starts a server, streams for a while, ends it."""
    with server(step_s=streams / rate) as (port, pid):
        row = uvloop.run(read(port, pid, streams, rate, seconds))
    print(
        f"{row.offered_per_s:13} {row.tokens_per_s:8.0f} {row.chunks_per_s:9.0f} {row.http_cpu_percent:11.0f} "
        f"{row.gap_ms_p50:11.1f} {row.gap_ms_p99:7.1f}",
        flush=True,
    )
    return row


@contextmanager
def server(step_s: float) -> Iterator[tuple[int, int]]:
    """The port and the process id of a server that is ready."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=run_server, args=(port, step_s))
    process.start()
    try:
        wait_until_ready(port)
        yield port, process.pid or 0
    finally:
        process.terminate()
        process.join()


def run_server(port: int, step_s: float) -> None:
    """The main function of the HTTP process."""
    flags = ["--port", str(port), "--max-model-len", "10000000", "--log-level", "error"]
    sys.exit(serve(flags, PacedBuilder(step_s)))


def wait_until_ready(port: int) -> None:
    end = time.monotonic() + START_S
    with httpx.Client(transport=httpx.HTTPTransport(retries=20)) as client:
        while client.get(f"http://127.0.0.1:{port}/health").status_code != 200:
            assert time.monotonic() < end, "the server does not become ready"
            time.sleep(0.1)


@dataclass(frozen=True)
class PacedBuilder:
    """In place of the real engine's builder; it travels to the engine process."""

    step_s: float

    def __call__(self, options: EngineOptions, progress: Callable[[str, int, int], None]) -> "PacedEngine":
        words = Tokenizer(options.model).encode_text(TEXT)
        return PacedEngine(words * 10_000, options.max_model_len or 0, self.step_s)


class PacedEngine(FakeEngine):
    """Begins a step every `period_s` seconds, however long the last one took."""

    def __init__(self, answer: list[int], max_model_len: int, period_s: float):
        super().__init__(lambda request: answer, max_model_len=max_model_len)
        self._period_s = period_s
        self._due = 0.0

    def step(self) -> list[Update]:
        now = time.perf_counter()
        self._due = max(self._due + self._period_s, now)
        time.sleep(self._due - now)
        return super().step()


class Reader(asyncio.Protocol):
    """Counts what comes; it parses nothing, for it is not what is measured."""

    def __init__(self) -> None:
        self.num_chunks = 0
        self.read_at: list[float] = []
        self._tail = b""

    def data_received(self, data: bytes) -> None:
        self.read_at.append(time.perf_counter())
        self.num_chunks += (self._tail + data).count(CONTENT)
        self._tail = data[-len(CONTENT) + 1 :]


async def read(port: int, pid: int, streams: int, rate: int, seconds: float) -> Row:
    """Opens the streams, waits until all flow, and counts for `seconds`."""
    readers = [await opened(port) for _ in range(streams)]
    async with asyncio.timeout(START_S):
        while not all(reader.num_chunks for reader in readers):
            await asyncio.sleep(0.01)
    await asyncio.sleep(WARM_S)
    before, began = totals(port, pid, readers), time.perf_counter()
    for reader in readers:
        reader.read_at.clear()
    await asyncio.sleep(seconds)
    gaps = [1e3 * (b - a) for reader in readers for a, b in pairwise(reader.read_at)]
    after, passed = totals(port, pid, readers), time.perf_counter() - began
    tokens, chunks, cpu_s = ((b - a) / passed for a, b in zip(before, after, strict=True))
    percentiles = statistics.quantiles(gaps, n=100)
    return Row(rate, tokens, chunks, 100 * cpu_s, percentiles[49], percentiles[98])


async def opened(port: int) -> Reader:
    """A stream that was asked for."""
    question = {"role": "user", "content": "Go on until I leave."}
    body = json.dumps({"messages": [question], "stream": True, "ignore_eos": True})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    transport, reader = await asyncio.get_running_loop().create_connection(Reader, "127.0.0.1", port)
    transport.write((head + body).encode())
    return reader


def totals(port: int, pid: int, readers: list[Reader]) -> tuple[float, int, float]:
    """So far: tokens that the server took from the engine, chunks read, processor seconds of the HTTP process."""
    families = text_string_to_metric_families(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
    tokens = next(family.samples[0].value for family in families if family.name == "g4jax:generation_tokens")
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return tokens, sum(reader.num_chunks for reader in readers), cpu_s


if __name__ == "__main__":
    main()
