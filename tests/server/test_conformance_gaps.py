"""Checks of OpenAI's clients that no other file of this folder makes; docs/api.md lists them all by number."""

import json

import httpx
import pytest

from tests.server.chats import WEATHER, ask, user
from tests.server.conftest import TOKENIZER, ids

CALL = '<|tool_call>call:weather{city:<|"|>Rome<|"|>}<tool_call|>'
ANSWERS = {
    "count": "one two three four<turn|>",
    "call": f"{CALL}<|tool_response>",
}
PAST_CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
THOUGHT = "<|channel>thought\nI look it up.\n<channel|>"


def prompt_of(served, messages, **body) -> str:
    answer = httpx.post(f"{served.url}/apply-template", json={"messages": messages} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()["prompt"]


def events_of(served, path: str, **body) -> list[dict]:
    answer = httpx.post(served.url + path, json=body | {"stream": True})
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "") and answer.headers["content-type"].startswith("text/event-stream")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_developer_is_system(served):  # row 17
    prompts = [
        prompt_of(served, [{"role": role, "content": "Be brief."}, *user("x")]) for role in ("developer", "system")
    ]
    assert prompts[0] == prompts[1] and "<|turn>system\nBe brief." in prompts[0]


@pytest.mark.parametrize(
    "thought",
    [
        {"reasoning": "I look it up."},
        {"reasoning_content": "I look it up."},
        {"reasoning": "I look it up.", "reasoning_content": "I look it up."},
    ],
)
def test_thought_comes_back_by_either_name(served, thought):
    messages = [*user("x"), {"role": "assistant", "tool_calls": [PAST_CALL], **thought}, RESULT]
    assert prompt_of(served, messages, tools=[WEATHER]).count(THOUGHT) == 1


def test_variables_reach_the_template(served):
    loop = [*user("x"), {"role": "assistant", "tool_calls": [PAST_CALL], "reasoning": "I look it up."}, RESULT]
    messages = [*loop, {"role": "assistant", "content": "Sunny."}, *user("y")]
    assert THOUGHT not in prompt_of(served, messages)
    assert THOUGHT in prompt_of(served, messages, chat_template_kwargs={"preserve_thinking": True})


def test_every_chunk_says_what_it_belongs_to(served):  # row 40
    chunks = events_of(served, "/v1/chat/completions", model="nano", messages=user("count"), n=2)
    assert {(each["object"], each["model"]) for each in chunks} == {("chat.completion.chunk", "nano")}
    assert len({(each["id"], each["created"]) for each in chunks}) == 1 and isinstance(chunks[0]["created"], int)


@pytest.mark.parametrize("stream", [False, True])
def test_answer_in_place_of_a_call(served, stream):  # row 58
    answer = ask(served, "count", tools=[WEATHER], tool_choice="auto", stream=stream)
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    messages = [choice.delta if stream else choice.message for choice in choices]
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["stop"]
    assert all(message.tool_calls is None for message in messages)
    assert "".join(message.content or "" for message in messages) == "one two three four"


@pytest.mark.parametrize(
    ("content", "read"),
    [("sunny", "sunny"), ([{"type": "text", "text": "sunny"}], "sunny"), ({"sky": "sunny"}, '{"sky": "sunny"}')],
)
def test_answer_after_a_tool_result(served, content, read):  # rows 74, 78
    messages = [*user("count"), {"role": "assistant", "tool_calls": [PAST_CALL]}, RESULT | {"content": content}]
    answer = served.client.chat.completions.create(model="nano", messages=messages, tools=[WEATHER])
    assert (answer.choices[0].message.role, answer.choices[0].finish_reason) == ("assistant", "stop")
    assert answer.choices[0].message.content == "one two three four"
    prompt = TOKENIZER.decode(served.engine.requests[-1].prompt_ids, skip_special_tokens=False)
    assert prompt.endswith(f'{CALL}<|tool_response>response:weather{{value:<|"|>{read}<|"|>}}<tool_response|>')


def test_stop_text_counts_from_min_tokens_on(served):
    after = len(ids("one two t"))
    body = {"min_tokens": after}
    assert ask(served, "count", stop=["two", "four"], extra_body=body).choices[0].message.content == "one two three "
    answer = served.client.completions.create(model="nano", prompt="count", stop=["two", "four"], extra_body=body)
    assert answer.choices[0].text == "one two three "


def test_sixteen_stop_texts(served):
    stops = [f"no {i}" for i in range(15)] + [" three"]
    assert ask(served, "count", stop=stops).choices[0].message.content == "one two"


@pytest.mark.parametrize("seed", [-(2**63), 2**63 - 1])
def test_seeds_at_the_limits(served, seed):  # row 14
    assert len(ask(served, "count", seed=seed, n=3).choices) == 3
    assert len({request.seed for request in served.engine.requests[-3:]}) == 3
    wrong = httpx.post(
        f"{served.url}/v1/chat/completions",
        json={"messages": user("x"), "seed": seed + (1 if seed > 0 else -1)},
    )
    assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "seed"


def test_request_id_is_the_clients(served):  # row 120
    body = {"messages": user("count")}
    given = httpx.post(f"{served.url}/v1/chat/completions", json=body, headers={"x-request-id": "mine"})
    assert given.headers["x-request-id"] == "mine"
    own = [httpx.post(f"{served.url}/v1/chat/completions", json=body).headers["x-request-id"] for _ in range(2)]
    assert own[0] != own[1] and all(own)
    assert httpx.get(f"{served.url}/v1/nothing", headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"


def test_list_of_models(served):  # row 122
    answer = httpx.get(f"{served.url}/v1/models").json()
    (entry,) = answer["data"]
    assert answer["object"] == "list" and isinstance(entry["created"], int) and entry["id"] == "nano"


def test_bytes_of_a_streamed_completion(served):  # rows 137, 138
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = events_of(served, "/v1/completions", prompt="count", stream_options=options)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts) and counts[0] > 0 and chunks[-1]["choices"] == []
    plain = events_of(served, "/v1/completions", prompt="count")
    assert all("usage" not in chunk and chunk["object"] == "text_completion" for chunk in plain)


@pytest.mark.parametrize("stream", [False, True])
def test_generation_ends_where_a_tool_would_answer(served, stream):  # row 167
    answer = ask(served, "call", tools=[WEATHER], stream=stream)
    choice = list(answer)[-1].choices[0] if stream else answer.choices[0]
    assert (choice.finish_reason, choice.matched_stop) == ("tool_calls", TOKENIZER.control.response_open)
