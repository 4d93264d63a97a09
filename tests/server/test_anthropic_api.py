"""POST /v1/messages with Anthropic's client, whole answers."""

import anthropic
import httpx
import pytest

from server.anthropic.chat_request import chat_fields
from server.anthropic.schemas import MessagesRequest
from tests.server.conftest import TOKENIZER, ids

CALL = '<|tool_call>call:weather{city:<|"|>Rome, "IT"<|"|>,days:3}<tool_call|>'
ANSWERS = {
    "sunny": "It is sunny.<turn|>",
    "count": "one two three four<turn|>",
    "think": "<|channel>thought\nTwo and two.<channel|>It is four.<turn|>",
    "two calls": f"<|channel>thought\nHm.<channel|>Well. {CALL}\n{CALL}<|tool_response>",
    "cut call": '<|tool_call>call:weather{city:<|"|>Romeeeeeeeeeeeeee',
    "nothing": "<turn|>",
    "endless": "abc",
}
WEATHER = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
}


def official(served) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=served.url, api_key="none", max_retries=0, timeout=20)


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def ask(served, messages, **more) -> anthropic.types.Message:
    messages = user(messages) if isinstance(messages, str) else messages
    more = {"max_tokens": 200} | more
    return official(served).messages.create(model="nano", messages=messages, **more)


def prompt(served) -> str:
    return TOKENIZER.decode(served.engine.requests[-1].prompt_ids, skip_special_tokens=False)


def test_simple_message(served):
    answer = ask(served, "hello")
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "nano")
    assert [(block.type, block.text) for block in answer.content] == [("text", "Hello!")]
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None) and answer.id.startswith("msg_")
    assert answer.usage.input_tokens == len(served.engine.requests[-1].prompt_ids)
    assert answer.usage.output_tokens == len(ids("Hello!<turn|>"))


@pytest.mark.parametrize("text", ["hello", "two calls", "think", "nothing"])
def test_answers_have_every_field_of_the_official_type(served, text):
    body = {"model": "nano", "messages": user(text), "max_tokens": 200, "tools": [WEATHER]}
    answer = httpx.post(f"{served.url}/v1/messages", json=body)
    anthropic.types.Message.model_validate(answer.json(), strict=True)


def test_cached_tokens_do_not_count_as_input(served):
    first = ask(served, "cached hello").usage
    again = ask(served, "cached hello").usage
    assert first.cache_read_input_tokens == 0
    assert (again.input_tokens, again.cache_read_input_tokens) == (1, first.input_tokens - 1)


def test_max_tokens(served):
    answer = ask(served, "endless", max_tokens=7)
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 7)


def test_stop_sequence(served):
    answer = ask(served, "count", stop_sequences=["xyz", " three"])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", " three")
    assert answer.content[0].text == "one two"


def test_thinking(served):
    answer = ask(served, "think", thinking={"type": "enabled", "budget_tokens": 100})
    thought, text = answer.content
    assert (thought.type, thought.thinking, thought.signature) == ("thinking", "Two and two.", "")
    assert (text.type, text.text) == ("text", "It is four.")
    assert answer.usage.output_tokens_details.thinking_tokens == len(ids("thought\nTwo and two."))


@pytest.mark.parametrize(("wish", "on"), [(None, False), ({"type": "disabled"}, False), ({"type": "adaptive"}, True)])
def test_thinking_is_asked_for_in_the_prompt(served, wish, on):
    ask(served, "hello", **({} if wish is None else {"thinking": wish}))
    assert (TOKENIZER.control.think in served.engine.requests[-1].prompt_ids) is on


def test_thinking_that_is_not_to_be_shown(served):
    answer = ask(served, "think", thinking={"type": "adaptive", "display": "omitted"})
    assert [block.type for block in answer.content] == ["text"]


def test_tool_use(served):
    answer = ask(served, "two calls", tools=[WEATHER])
    thought, text, call, second = answer.content
    assert (thought.type, text.text, call.type, call.name) == ("thinking", "Well. ", "tool_use", "weather")
    assert call.input == second.input == {"city": 'Rome, "IT"', "days": 3} and call.id != second.id
    assert answer.stop_reason == "tool_use" and "Tells the weather." in prompt(served)


def test_one_tool_at_a_time(served):
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    answer = ask(served, "two calls", tools=[WEATHER], tool_choice=choice)
    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use"]
    assert answer.stop_reason == "tool_use"


def test_no_tool(served):
    answer = ask(served, "two calls", tools=[WEATHER], tool_choice={"type": "none"})
    assert [block.type for block in answer.content] == ["thinking", "text"] and answer.stop_reason == "end_turn"
    assert TOKENIZER.control.tool_open not in served.engine.requests[-1].prompt_ids


def test_call_that_was_cut_off_is_left_out(served):
    answer = ask(served, "cut call", tools=[WEATHER], max_tokens=50)
    assert (answer.stop_reason, answer.content) == ("max_tokens", [])


@pytest.mark.parametrize(
    ("content", "is_error", "expected"),
    [
        ("sunny", False, "sunny"),
        ([{"type": "text", "text": "sunny"}, {"type": "text", "text": "warm"}], False, "sunny\nwarm"),
        ("sunny wires fell", True, "Error: sunny wires fell"),
    ],
)
def test_tool_result(served, content, is_error, expected):
    first = ask(served, "two calls", tools=[WEATHER])
    calls = [block for block in first.content if block.type == "tool_use"]
    results = [
        {"type": "tool_result", "tool_use_id": call.id, "content": content, "is_error": is_error} for call in calls
    ]
    messages = [
        *user("two calls"),
        first.to_param(),
        {"role": "user", "content": [{"type": "text", "text": "sunny?"}, *results]},
    ]
    assert ask(served, messages, tools=[WEATHER], max_tokens=50).content[0].text == "It is sunny."
    response = f'<|tool_response>response:weather{{value:<|"|>{expected}<|"|>}}<tool_response|>'
    assert f"Well.{CALL}{CALL}{response}{response}" in prompt(served)


def test_system_history_and_ignored_fields(served):
    cached = {"cache_control": {"type": "ephemeral"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "hello", **cached}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Be nice.", "signature": "abc"},
                {"type": "redacted_thinking", "data": "abc"},
                {"type": "text", "text": "Hi."},
            ],
        },
        *user("hello"),
    ]
    system = [{"type": "text", "text": "Be brief.", **cached}, {"type": "text", "text": "Be kind."}]
    sampling = {"temperature": 0.5, "top_p": 0.5, "top_k": 3}  # Older clients have parameters for them.
    ask(served, messages, system=system, metadata={"user_id": "u"}, service_tier="auto", extra_body=sampling)
    text = prompt(served)
    assert "<|turn>system\nBe brief. Be kind." in text and "<|turn>model\nHi.<turn|>" in text
    params = served.engine.requests[-1].params
    assert (params.temperature, params.top_p, params.top_k, params.max_tokens) == (0.5, 0.5, 3, 200)


def test_answer_that_has_begun_goes_on(served):
    ask(served, [*user("hello"), {"role": "assistant", "content": "The best answer is ("}])
    assert prompt(served).endswith("<|turn>model\nThe best answer is (")


def test_wishes_become_those_of_a_chat():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    body = {
        "model": "nano",
        "max_tokens": 5,
        "messages": user("hello"),
        "tools": [WEATHER],
        "thinking": {"type": "enabled", "budget_tokens": 3},
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
    }
    fields = chat_fields(MessagesRequest.model_validate(body | {"tool_choice": {"type": "any"}}))
    assert fields["tool_choice"] == "required" and fields["thinking_token_budget"] == 3
    assert fields["response_format"]["json_schema"]["schema"] == schema
    function = fields["tools"][0]["function"]
    assert function == {"name": "weather", "description": "Tells the weather.", "parameters": WEATHER["input_schema"]}
    fields = chat_fields(MessagesRequest.model_validate(body | {"tool_choice": {"type": "tool", "name": "weather"}}))
    assert fields["tool_choice"] == {"type": "function", "function": {"name": "weather"}}


def test_count_tokens(served):
    more = {"messages": user("hello"), "system": "Be brief.", "tools": [WEATHER]}
    count = official(served).messages.count_tokens(model="nano", **more)
    assert count.input_tokens == ask(served, **more).usage.input_tokens
    long = official(served).messages.count_tokens(model="nano", messages=user("1" * 600))
    assert 600 < long.input_tokens < 620


def test_text_that_a_stop_sequence_holds_back_comes_before_the_call(served):
    answer = ask(served, "two calls", tools=[WEATHER], stop_sequences=["l. X"])
    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert answer.content[1].text == "Well. "
