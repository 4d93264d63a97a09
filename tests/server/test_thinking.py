"""Thoughts: asked for or not, shown, hidden, joined to the content, and cut by a budget."""

import openai
import pytest

from tests.server.chats import WEATHER, ask, joined, user, whole
from tests.server.conftest import TOKENIZER, ids

THOUGHT = "Two and two."
ANSWERS = {
    "sum": f"<|channel>thought\n{THOUGHT}<channel|>It is four.<turn|>",
    "plain": "It is four.<turn|>",
    "result": f"{THOUGHT}<channel|>It is four.<turn|>",
}
THINK = {"chat_template_kwargs": {"enable_thinking": True}}


def _after_a_tool_result(served, **more):
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        *user("result"),
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    return served.client.chat.completions.create(
        model="nano", messages=messages, tools=[WEATHER], extra_body=THINK | more
    )


@pytest.mark.parametrize("stream", [False, True])
def test_thought_comes_before_the_content(served, stream):  # rows 23, 50
    if not stream:
        choice = whole(ask(served, "sum", extra_body=THINK))[0]
        assert (choice["reasoning"], choice["content"]) == (THOUGHT, "It is four.")
        return
    deltas = [chunk.choices[0].delta for chunk in ask(served, "sum", extra_body=THINK, stream=True)][1:]
    kinds = ["reasoning" if getattr(delta, "reasoning", None) else "content" for delta in deltas[:-1]]
    assert kinds == sorted(kinds, reverse=True) and set(kinds) == {"reasoning", "content"}
    assert all(delta.content is None for delta, kind in zip(deltas, kinds, strict=False) if kind == "reasoning")


def test_no_thought(served):  # row 24
    message = ask(served, "plain").choices[0].message
    assert (message.reasoning, message.reasoning_content, message.content) == (None, None, "It is four.")


@pytest.mark.parametrize(
    ("more", "reasoning", "content"),
    [
        ({}, THOUGHT, "It is four."),
        ({"include_reasoning": False}, "", "It is four."),
        ({"separate_reasoning": False}, "", THOUGHT + "It is four."),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_where_the_thought_goes(served, more, reasoning, content, stream):  # row 25
    answer = ask(served, "sum", extra_body=THINK | more, stream=stream, **_usage(stream))
    chunks = list(answer) if stream else []
    choice = joined(chunks)[0] if stream else whole(answer)[0]
    assert (choice["reasoning"], choice["content"]) == (reasoning, content)
    usage = chunks[-1].usage if stream else answer.usage
    assert usage.completion_tokens_details.reasoning_tokens == len(ids(f"thought\n{THOUGHT}"))


def _usage(stream: bool) -> dict:
    return {"stream_options": {"include_usage": True}} if stream else {}


@pytest.mark.parametrize("budget", [0, 1, 4])
def test_budget_closes_the_thought(served, budget):
    answer = ask(served, "sum", extra_body=THINK | {"thinking_token_budget": budget})
    assert answer.usage.completion_tokens_details.reasoning_tokens == budget
    label, text = ids("thought\n"), ids(THOUGHT)
    shown = TOKENIZER.decode([*label, *text][:budget])
    assert whole(answer)[0]["reasoning"] == shown.removeprefix("thought").removeprefix("\n")
    assert whole(answer)[0]["content"].endswith("It is four.") and answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("more", [{}, {"thinking_token_budget": -1}, {"thinking_token_budget": None}])
def test_no_budget_is_no_limit(served, more):  # row 105
    assert whole(ask(served, "sum", extra_body=THINK | more))[0]["reasoning"] == THOUGHT
    assert served.engine.requests[-1].guide is None


def test_budget_without_thinking_changes_nothing(served):
    assert whole(ask(served, "plain", extra_body={"thinking_token_budget": 1}))[0]["content"] == "It is four."
    assert served.engine.requests[-1].guide is None


def test_budget_of_a_thought_that_the_prompt_begins(served):
    assert whole(_after_a_tool_result(served))[0]["reasoning"] == THOUGHT
    assert TOKENIZER.control.channel_open in served.engine.requests[-1].prompt_ids[-4:]
    answer = _after_a_tool_result(served, thinking_token_budget=2)
    assert answer.usage.completion_tokens_details.reasoning_tokens == 2
    assert whole(answer)[0]["reasoning"] == TOKENIZER.decode(ids(THOUGHT)[:2])


def test_budget_of_a_completion(served):
    prompt = "<|turn>user\nresult<turn|>\n<|turn>model\n<|channel>thought\n"
    answer = served.client.completions.create(
        model="nano", prompt=prompt, max_tokens=60, extra_body={"thinking_token_budget": 2}
    )
    assert answer.choices[0].text.startswith(TOKENIZER.decode(ids(THOUGHT)[:2]))
    assert answer.choices[0].text.endswith("It is four.") and THOUGHT not in answer.choices[0].text


@pytest.mark.parametrize("budget", [-2, 0.6, "5", True])  # row 105
def test_budget_that_is_none(served, budget):
    with pytest.raises(openai.BadRequestError) as error:
        ask(served, "sum", extra_body={"thinking_token_budget": budget})
    assert error.value.param == "thinking_token_budget" and served.healthy()
