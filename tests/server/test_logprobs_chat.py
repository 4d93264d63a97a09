"""Log probabilities of a chat's tokens, with the official client."""

import math

import httpx
import openai
import pytest

from g4jax.testing.fake_engine import made_up_logprobs
from tests.server.chats import WEATHER, ask, user
from tests.server.conftest import TOKENIZER, ids

ANSWERS = {
    "count": "one two three four<turn|>",
    "greet": "日本語 ✓ naïve — 👍<turn|>",
    "think": "<|channel>thought\nTwo and two.<channel|>It is four.<turn|>",
    "call": '<|tool_call>call:weather{city:<|"|>Rome<|"|>}<tool_call|><|tool_response>',
}


def _entries(chunks) -> list:
    return [
        entry
        for chunk in chunks
        for choice in chunk.choices
        if choice.logprobs is not None
        for entry in choice.logprobs.content
    ]


@pytest.mark.parametrize("logprobs", [None, False])  # row 28
def test_absent(served, logprobs):
    assert ask(served, "count", logprobs=logprobs).choices[0].logprobs is None
    assert served.engine.requests[-1].params.logprobs is None
    assert _entries(ask(served, "count", logprobs=logprobs, stream=True)) == []


def test_alone(served):  # row 29
    content = ask(served, "count", logprobs=True, top_logprobs=0).choices[0].logprobs.content
    assert [entry.top_logprobs for entry in content] == [[]] * len(ids(ANSWERS["count"]))
    assert [entry.token for entry in content] == [TOKENIZER.decode([i]) for i in ids("one two three four")] + [
        "<turn|>"
    ]
    assert ask(served, "count", logprobs=True).choices[0].logprobs.content == content


@pytest.mark.parametrize("num_top", [3, 5, 20])  # rows 30, 31
def test_with_the_likeliest(served, num_top):
    content = ask(served, "count", logprobs=True, top_logprobs=num_top).choices[0].logprobs.content
    assert served.engine.requests[-1].params.logprobs == num_top
    prompt = len(served.engine.requests[-1].prompt_ids)
    for position, (entry, token) in enumerate(zip(content, ids(ANSWERS["count"]), strict=True), prompt):
        told = made_up_logprobs(token, position, num_top, TOKENIZER.vocab_size)
        assert [top.logprob for top in entry.top_logprobs] == told.top_logprobs
        assert told.top_logprobs == sorted(told.top_logprobs, reverse=True) and len(told.top_logprobs) == num_top
        decoded = [TOKENIZER.token_bytes(i) for i in told.top_ids if i not in TOKENIZER.control_ids]
        assert [bytes(top.bytes) for top in entry.top_logprobs if top.bytes is not None] == decoded
        assert isinstance(entry.token, str) and isinstance(entry.logprob, float)


def test_impossible_token_is_finite(served):  # row 34
    content = ask(served, "count", logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert {entry.logprob for entry in content} == {-0.25, -9999.0}
    assert all(math.isfinite(top.logprob) for entry in content for top in entry.top_logprobs)


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("count", {}),
        ("count", {"stop": "o th"}),
        ("count", {"max_tokens": 3}),
        ("greet", {}),
        ("think", {}),
        ("call", {"tools": [WEATHER]}),
        ("call", {"tools": [WEATHER], "parallel_tool_calls": False}),
    ],
)
def test_one_entry_for_each_token_streamed_or_not(served, text, more):  # row 35
    more = {"logprobs": True, "top_logprobs": 2} | more
    answer = ask(served, text, **more)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    chunks = list(ask(served, text, stream=True, **more))
    assert _entries(chunks) == content
    assert chunks[0].choices[0].logprobs is None and chunks[0].choices[0].delta.role == "assistant"


def test_entries_come_with_the_text_of_their_tokens(served):
    for chunk in ask(served, "count", stream=True, logprobs=True):
        if chunk.choices[0].delta.content:
            entries = chunk.choices[0].logprobs.content
            text = "".join(entry.token for entry in entries if entry.bytes is not None)
            assert text == chunk.choices[0].delta.content


def test_bytes_of_cut_characters_join(served):  # row 36
    content = ask(served, "greet", logprobs=True).choices[0].logprobs.content
    assert b"".join(bytes(entry.bytes or []) for entry in content).decode() == "日本語 ✓ naïve — 👍"
    assert "\\xe8" in [entry.token for entry in content], "the first byte of a character is spelled out"
    assert not any("\ufffd" in entry.token for entry in content)
    assert (content[-1].token, content[-1].bytes) == ("<turn|>", None)


def test_thought_that_is_hidden_has_no_entries(served):  # row 25
    shown = ask(served, "think", logprobs=True).choices[0].logprobs.content
    body = {"include_reasoning": False}
    hidden = ask(served, "think", logprobs=True, extra_body=body).choices[0].logprobs.content
    assert "".join(entry.token for entry in hidden) == "It is four.<turn|>"
    assert hidden == shown[-len(hidden) :] and len(shown) == len(ids(ANSWERS["think"]))
    assert _entries(ask(served, "think", logprobs=True, extra_body=body, stream=True)) == hidden


def test_choices_have_their_own(served):
    answer = ask(served, "count", n=2, logprobs=True, top_logprobs=1)
    assert answer.choices[0].logprobs == answer.choices[1].logprobs
    assert len(_entries(ask(served, "count", n=2, logprobs=True, stream=True))) == answer.usage.completion_tokens


def test_tokens_by_their_ids(served):
    body = {"return_tokens_as_token_ids": True}
    content = ask(served, "count", logprobs=True, top_logprobs=1, extra_body=body).choices[0].logprobs.content
    assert [entry.token for entry in content] == [f"token_id:{i}" for i in ids(ANSWERS["count"])]
    assert all(top.token.startswith("token_id:") for entry in content for top in entry.top_logprobs)


def test_prompt_logprobs(served):
    answer = ask(served, "count", n=2, extra_body={"prompt_logprobs": 2})
    prompt = served.engine.requests[-1].prompt_ids
    told = answer.prompt_logprobs
    assert len(told) == len(prompt) == answer.usage.prompt_tokens and told[0] is None
    for position, (entry, token) in enumerate(zip(told[1:], prompt[1:], strict=True), 1):
        expected = made_up_logprobs(token, position, 2, TOKENIZER.vocab_size)
        assert entry[str(token)]["logprob"] == max(expected.logprob, -9999.0)
        assert entry[str(token)].get("rank") == (1 if expected.top_ids[0] == token else None)
        assert entry.keys() == {str(i) for i in (token, *expected.top_ids)}
    assert told[-1][str(prompt[-1])]["decoded_token"] == "\n"
    assert not hasattr(ask(served, "count"), "prompt_logprobs")


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),  # row 32
        ("top_logprobs", {"logprobs": True, "top_logprobs": -1}),
        ("top_logprobs", {"top_logprobs": 5}),  # row 33
        ("top_logprobs", {"top_logprobs": 5, "logprobs": False}),
        ("logprobs", {"logprobs": 5}),
        ("prompt_logprobs", {"prompt_logprobs": -1}),  # row 37
        ("prompt_logprobs", {"prompt_logprobs": 21}),
        ("prompt_logprobs", {"prompt_logprobs": 1, "stream": True}),
    ],
)
def test_refusals_name_the_field(served, param, body):
    with pytest.raises(openai.BadRequestError) as error:
        served.client.chat.completions.create(model="nano", messages=user("count"), extra_body=body)
    assert error.value.param == param and served.healthy()


def test_field_is_null_without_them(served):
    answer = httpx.post(f"{served.url}/v1/chat/completions", json={"messages": user("count")}).json()
    assert answer["choices"][0]["logprobs"] is None and "prompt_logprobs" not in answer
