"""The events of POST /v1/messages."""

import json
import time

import anthropic
import pydantic
import pytest

from g4jax.testing.fake_engine import FakeEngine
from tests.server.chats import assert_named_events
from tests.server.conftest import answers, running
from tests.server.test_anthropic_api import ANSWERS, WEATHER, ask, official, user

OFFICIAL = pydantic.TypeAdapter(anthropic.types.RawMessageStreamEvent)


def stream(served, text: str, **more) -> list:
    more = {"max_tokens": 200} | more
    return list(official(served).messages.create(model="nano", messages=user(text), stream=True, **more))


def kinds(events) -> list[str]:
    """The kinds of the events, deltas of one kind in a row once."""
    names = [event.delta.type if event.type == "content_block_delta" else event.type for event in events]
    return [name for i, name in enumerate(names) if i == 0 or name != names[i - 1]]


def block(*deltas: str) -> list[str]:
    return ["content_block_start", *deltas, "content_block_stop"]


THOUGHT = block("thinking_delta", "signature_delta")
TEXT = block("text_delta")
CALL = block("input_json_delta")


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("hello", TEXT),
        ("think", [*THOUGHT, *TEXT]),
        ("two calls", [*THOUGHT, *TEXT, *CALL, *CALL]),
        ("cut call", CALL),
        ("nothing", block()),
    ],
)
def test_order_of_events(served, text, blocks):
    events = stream(served, text, tools=[WEATHER])
    assert kinds(events) == ["message_start", *blocks, "message_delta", "message_stop"]
    indices = [event.index for event in events if event.type == "content_block_start"]
    assert indices == list(range(len(indices)))


@pytest.mark.parametrize("text", ["hello", "think", "two calls", "endless", "nothing"])
def test_helper_makes_the_whole_of_a_stream(served, text):
    more = {"messages": user(text), "tools": [WEATHER], "max_tokens": 200}
    with official(served).messages.stream(model="nano", **more) as events:
        text_deltas = "".join(events.text_stream)
        streamed = events.get_final_message()
    whole = ask(served, **more)
    exclude = {"id": True, "usage": True, "content": {"__all__": {"id", "parsed_output"}}}
    assert streamed.model_dump(exclude=exclude) == whole.model_dump(exclude=exclude)
    assert text_deltas == "".join(block.text for block in whole.content if block.type == "text")
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    total = whole.usage.input_tokens + whole.usage.cache_read_input_tokens
    assert streamed.usage.input_tokens + streamed.usage.cache_read_input_tokens == total


def test_stop_sequence(served):
    *_, delta, _ = stream(served, "count", stop_sequences=[" three"])
    assert (delta.delta.stop_reason, delta.delta.stop_sequence) == ("stop_sequence", " three")


def test_start_of_a_call_is_without_input(served):
    events = stream(served, "two calls", tools=[WEATHER])
    start = next(e.content_block for e in events if e.type == "content_block_start" and e.index == 2)
    assert (start.type, start.name, start.input) == ("tool_use", "weather", {}) and start.id
    pieces = [e.delta.partial_json for e in events if e.type == "content_block_delta" and e.index == 2]
    assert json.loads("".join(pieces)) == {"city": 'Rome, "IT"', "days": 3}


def test_bytes_of_a_stream(served):
    body = {"model": "nano", "messages": user("two calls"), "max_tokens": 200, "tools": [WEATHER], "stream": True}
    assert_named_events(f"{served.url}/v1/messages", body, OFFICIAL)


def test_disconnect_aborts():
    with running(FakeEngine(answers(ANSWERS), max_model_len=10**6, step_s=0.002)) as server:
        more = {"model": "nano", "messages": user("endless"), "max_tokens": 10**5}
        with official(server).messages.create(stream=True, **more) as events:
            next(iter(events))
        _until_aborted(server, 1)
        with pytest.raises(anthropic.APITimeoutError):
            official(server).with_options(timeout=0.3).messages.create(**more)
        _until_aborted(server, 2)
        assert not server.engine.has_work and server.healthy()


def _until_aborted(server, count: int) -> None:
    end = time.monotonic() + 10
    while len(server.engine.aborted) < count:
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)
