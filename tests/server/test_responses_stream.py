"""The events of POST /v1/responses."""

import json
import time

import pydantic
import pytest
from openai.types.responses import ResponseStreamEvent

from g4jax.testing.fake_engine import FakeEngine
from tests.server.chats import assert_named_events
from tests.server.conftest import answers, running
from tests.server.test_responses_api import ANSWERS, WEATHER

OFFICIAL = pydantic.TypeAdapter(ResponseStreamEvent)


def stream(served, text: str, **more) -> list:
    return list(served.client.responses.create(model="nano", input=text, stream=True, **more))


def kinds(events) -> list[str]:
    """The names of the events, deltas of one kind in a row once."""
    names = [event.type.removeprefix("response.") for event in events]
    return [name for i, name in enumerate(names) if i == 0 or not (name.endswith("delta") and name == names[i - 1])]


BEGIN = ["created", "in_progress"]
MESSAGE = [
    "output_item.added",
    "content_part.added",
    "output_text.delta",
    "output_text.done",
    "content_part.done",
    "output_item.done",
]
THOUGHT = [name.replace("output_text", "reasoning_text") for name in MESSAGE]
CALL = [
    "output_item.added",
    "function_call_arguments.delta",
    "function_call_arguments.done",
    "output_item.done",
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", [*BEGIN, *MESSAGE, "completed"]),
        ("think", [*BEGIN, *THOUGHT, *MESSAGE, "completed"]),
        ("two calls", [*BEGIN, *THOUGHT, *MESSAGE, *CALL, *CALL, "completed"]),
        ("endless", [*BEGIN, *MESSAGE, "incomplete"]),
        ("cut call", [*BEGIN, *CALL, "incomplete"]),
        ("nothing", [*BEGIN, *(name for name in MESSAGE if name != "output_text.delta"), "completed"]),
    ],
)
def test_order_of_events(served, text, expected):
    events = stream(served, text, tools=[WEATHER], max_output_tokens=200)
    assert kinds(events) == expected
    assert [event.sequence_number for event in events] == list(range(len(events)))


@pytest.mark.parametrize("text", ["hello", "think", "two calls", "endless", "nothing", "cut thought"])
def test_stream_joined_is_the_whole(served, text):
    more = {"tools": [WEATHER], "max_output_tokens": 200}
    whole = served.client.responses.create(model="nano", input=text, **more)
    events = stream(served, text, **more)
    last = events[-1].response
    unique = {"id", "call_id", "created_at", "completed_at"}

    def plain(value):
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items() if name not in unique | {"cached_tokens"}}
        return [plain(item) for item in value] if isinstance(value, list) else value

    assert plain(last.model_dump()) == plain(whole.model_dump())
    assert last.output == [event.item for event in events if event.type == "response.output_item.done"]
    joined: dict[int, str] = {}
    for event in events:
        if event.type.endswith(".delta"):
            joined[event.output_index] = joined.get(event.output_index, "") + event.delta
    texts = [getattr(item, "arguments", None) or item.content[0].text for item in last.output]
    assert [joined.get(i, "") for i in range(len(texts))] == texts
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text


def test_streamed_call(served):
    events = stream(served, "two calls", tools=[WEATHER])
    added = [event.item for event in events if event.type == "response.output_item.added"][2:]
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [item.name for item in added] == ["weather", "weather"] and added[0].call_id != added[1].call_id
    for item, end in zip(added, done, strict=True):
        deltas = [
            event.delta for event in events if getattr(event, "item_id", None) == item.id and "delta" in event.type
        ]
        assert "".join(deltas) == end.arguments and json.loads(end.arguments) == {"city": 'Rome, "IT"', "days": 3}
        assert (item.status, item.arguments) == ("in_progress", "")


def test_streamed_logprobs(served):
    include = ["message.output_text.logprobs"]
    events = stream(served, "think", include=include, top_logprobs=2)
    deltas = [entry for event in events if event.type == "response.output_text.delta" for entry in event.logprobs]
    (done,) = (event for event in events if event.type == "response.output_text.done")
    assert "".join(entry.token for entry in deltas) == "It is four." and len(deltas[0].top_logprobs) == 2
    assert [entry.token for entry in done.logprobs] == [entry.token for entry in deltas]
    assert len(events[-1].response.output[1].content[0].logprobs) == len(deltas)


def test_helper_of_the_official_client(served):
    with served.client.responses.stream(model="nano", input="two calls", tools=[WEATHER]) as events:
        snapshots = [event.snapshot for event in events if event.type == "response.output_text.delta"]
        final = events.get_final_response()
    assert snapshots[-1] == final.output_text == "Well. " and final.status == "completed"


@pytest.mark.parametrize("text", ["two calls", "cut thought"])
def test_bytes_of_a_stream(served, text):
    body = {"input": text, "stream": True, "tools": [WEATHER], "max_output_tokens": 200}
    body |= {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    assert_named_events(f"{served.url}/v1/responses", body, OFFICIAL)


def test_disconnect_aborts():
    with running(FakeEngine(answers(ANSWERS), max_model_len=10**6, step_s=0.002)) as server:
        with server.client.responses.create(model="nano", input="endless", stream=True) as events:
            next(iter(events))
        end = time.monotonic() + 10
        while not server.engine.aborted and time.monotonic() < end:
            time.sleep(0.01)
        assert len(server.engine.aborted) == 1 and not server.engine.has_work and server.healthy()
