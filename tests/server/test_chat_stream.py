"""The chunks of a chat's stream, one by one."""

import json

import httpx
import pytest

from tests.server.chats import WEATHER, ask, user

CALL = '<|tool_call>call:weather{city:<|"|>Rome<|"|>,days:3}<tool_call|>'
ANSWERS = {
    "count": "one two three four<turn|>",
    "call": f"Well. {CALL}<|tool_response>",
}
USAGE = {"stream_options": {"include_usage": True}}


def _raw(served, text: str, **more) -> list[dict]:
    body = {"messages": user(text), "stream": True} | more
    events = httpx.post(f"{served.url}/v1/chat/completions", json=body).text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def test_fields_that_say_nothing_are_left_out(served):  # row 55
    for chunk in _raw(served, "call", tools=[WEATHER]):
        (choice,) = chunk["choices"]
        assert chunk.keys() == {"id", "object", "created", "model", "choices"}
        assert None not in choice["delta"].values() and len(choice["delta"]) <= 2
        assert choice.keys() - {"matched_stop"} == {"index", "delta", "finish_reason", "logprobs"}


@pytest.mark.parametrize("n", [1, 2])
def test_one_finish_reason_for_each_choice(served, n):  # rows 42, 43
    finished = [
        choice.index
        for chunk in ask(served, "count", stream=True, n=n)
        for choice in chunk.choices
        if choice.finish_reason
    ]
    assert sorted(finished) == list(range(n))


@pytest.mark.parametrize("more", [{}, {"stream_options": {"include_usage": False}}, {"stream_options": {}}])
def test_no_usage_where_it_is_not_asked_for(served, more):  # row 45
    assert not any("usage" in chunk for chunk in _raw(served, "count", **more))


@pytest.mark.parametrize("text", ["count", "call"])
def test_usage_comes_last(served, text):  # rows 44, 62
    *chunks, last = ask(served, text, stream=True, tools=[WEATHER], **USAGE)
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert last.choices == [] and last.usage.completion_tokens > 0 and last.id == chunks[0].id


def test_finish_reason_comes_after_the_arguments(served):  # rows 59, 60, 63
    chunks = list(ask(served, "call", stream=True, tools=[WEATHER]))
    pieces = [(chunk.choices[0].delta.tool_calls, chunk.choices[0].finish_reason) for chunk in chunks]
    assert pieces[-1] == (None, "tool_calls") and all(reason is None for _, reason in pieces[:-1])
    calls = [call for given, _ in pieces for call in given or []]
    assert (calls[0].function.name, calls[0].function.arguments, calls[0].type) == ("weather", "", "function")
    assert all(call.id is None and call.function.name is None for call in calls[1:])
    assert json.loads("".join(call.function.arguments for call in calls)) == {"city": "Rome", "days": 3}
