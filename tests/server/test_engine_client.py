"""The two ends of the connection between the HTTP process and the engine."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
import time

import pytest

from g4jax.engine.options import EngineOptions, InvalidOption
from g4jax.sample.params import SamplingParams
from g4jax.testing.fake_engine import FakeEngine, build_fake_engine
from server.engine_client import EngineClient, EngineDied, RequestRefused
from server.engine_process import STATS_PERIOD_S, serve
from server.messages import Add, Stats, Update, Updates


def _add(request_id: str, prompt=(5, 6, 7), **params) -> Add:
    return Add(request_id, list(prompt), SamplingParams(**params), stop_ids=[1])


@contextlib.asynccontextmanager
async def _connected(engine: FakeEngine):
    ours, theirs = multiprocessing.Pipe()
    thread = threading.Thread(target=serve, args=(theirs, engine), daemon=True)
    thread.start()
    client = EngineClient(ours)
    client.start()
    yield client
    client.close()
    await asyncio.to_thread(thread.join, 5)
    theirs.close()


async def _until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def _collect(client: EngineClient, *adds: Add) -> dict[str, list[int]]:
    tokens: dict[str, list[int]] = {}
    async for update in client.generate(*adds):
        tokens.setdefault(update.id, []).extend(update.token_ids)
    return tokens


def build_nothing(options, progress):
    raise InvalidOption("mesh", "there is 1 device; use tp=1")


def test_requests_run_together_and_end():
    async def run():
        async with _connected(FakeEngine()) as client:
            assert await _collect(client, _add("a"), _add("b", [9])) == {"a": [5, 6, 7, 1], "b": [9, 1]}

    asyncio.run(run())


def test_tokens_that_wait_are_merged():
    async def run():
        async with _connected(FakeEngine()) as client:
            updates = client.generate(_add("a", range(5, 105)))
            first = await anext(updates)
            await asyncio.sleep(0.2)
            rest = [update async for update in updates]
            assert len(rest) == 1 and rest[0].finish_reason == "stop"
            assert first.token_ids + rest[0].token_ids == [*range(5, 105), 1]

    asyncio.run(run())


def test_closed_iterator_aborts():
    async def run():
        engine = FakeEngine(lambda request: [5], max_model_len=10**6, step_s=0.001)
        async with _connected(engine) as client:
            async with contextlib.aclosing(client.generate(_add("a"), _add("b"))) as updates:
                await anext(updates)
            await _until(lambda: not engine.has_work)
            assert sorted(engine.aborted) == ["a", "b"]

    asyncio.run(run())


def test_one_of_two_is_aborted():
    async def run():
        engine = FakeEngine(lambda request: [5], max_model_len=10**6, step_s=0.001)
        async with _connected(engine) as client:
            counts = {"a": 0, "b": 0}
            async for update in client.generate(_add("a"), _add("b", max_tokens=200)):
                counts[update.id] += len(update.token_ids)
                client.abort("a")
            assert engine.aborted == ["a"] and counts["b"] == 200 and counts["a"] < 200

    asyncio.run(run())


def test_refused_request_does_not_hurt_the_others():
    async def run():
        async with _connected(FakeEngine(max_model_len=8)) as client:
            with pytest.raises(RequestRefused, match="20 tokens, at most 7"):
                await _collect(client, _add("long", range(20)))
            assert await _collect(client, _add("short", [5])) == {"short": [5, 1]}

    asyncio.run(run())


def test_failed_step_ends_all_requests():
    async def run():
        async with _connected(FakeEngine(lambda request: [5], fail_after=3)) as client:
            with pytest.raises(EngineDied, match="told to fail"):
                await _collect(client, _add("a"))
            with pytest.raises(EngineDied):
                await _collect(client, _add("b"))

    asyncio.run(run())


def test_statistics_are_rare_while_it_is_busy_and_right_when_it_is_not():
    async def run():
        async with _connected(FakeEngine(lambda request: [5], max_model_len=10**6, step_s=0.001)) as client:
            await _until(lambda: client.stats is not None)
            seen, deliver = [], client._deliver
            client._deliver = lambda message: (seen.append(type(message)), deliver(message))
            began = time.monotonic()
            await _collect(client, _add("a", max_tokens=1000))
            most = (time.monotonic() - began) / STATS_PERIOD_S + 2
            assert seen.count(Updates) == 1000 and 1 <= seen.count(Stats) <= most
            assert client.stats.prompt_tokens == 3
            await _until(lambda: client.stats.running == 0)
            async with contextlib.aclosing(client.generate(_add("b"))) as updates:
                await anext(updates)
            await _until(lambda: client.stats.running == 0 and client.stats.prompt_tokens == 6)

    asyncio.run(run())


def test_flush_of_a_cache_that_breaks_the_engine():
    async def run():
        engine = FakeEngine()
        engine.flush_cache = lambda: {}["page"]
        async with _connected(engine) as client:
            for _ in range(2):
                with pytest.raises(EngineDied):
                    await client.flush_cache()

    asyncio.run(run())


def test_process_of_its_own():
    async def run():
        client = EngineClient.spawn(EngineOptions("none", max_model_len=10**6), build_fake_engine, "error")
        process = client._process
        client.start()
        try:
            await _until(lambda: client.info is not None)
            assert client.info.max_model_len == 10**6 and client.progress.text == "building the fake engine"
            assert await _collect(client, _add("a")) == {"a": [5, 6, 7, 1]}
            updates = client.generate(_add("b", range(2, 10**5)))
            assert isinstance(await anext(updates), Update)
            os.kill(process.pid, signal.SIGKILL)
            with pytest.raises(EngineDied, match="killed by signal 9"):
                async for _ in updates:
                    pass
            assert "signal 9" in client.failure.message
        finally:
            client.close()
        assert not process.is_alive()

    asyncio.run(run())


def test_start_that_fails_names_the_option():
    async def run():
        client = EngineClient.spawn(EngineOptions("none"), build_nothing, "error")
        client.start()
        await _until(lambda: client.failure is not None)
        assert (client.failure.option, client.failure.message) == ("mesh", "there is 1 device; use tp=1")
        client.close()

    asyncio.run(run())


def test_close_ends_an_idle_process_at_once():
    async def run():
        client = EngineClient.spawn(EngineOptions("none"), build_fake_engine, "error")
        client.start()
        await _until(lambda: client.info is not None)
        began = time.monotonic()
        client.close()
        assert not client._process.is_alive() and client._process.exitcode == 0
        assert time.monotonic() - began < 3

    asyncio.run(run())
