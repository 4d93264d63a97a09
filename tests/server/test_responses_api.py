"""POST /v1/responses with the official client, whole answers."""

import json

import httpx
import pytest
from openai.types.responses import Response

from server.responses.chat_request import chat_fields
from server.responses.schemas import ResponsesRequest
from tests.server.conftest import TOKENIZER, ids

CALL = '<|tool_call>call:weather{city:<|"|>Rome, "IT"<|"|>,days:3}<tool_call|>'
ANSWERS = {
    "sunny": "It is sunny.<turn|>",
    "think": "<|channel>thought\nTwo and two.<channel|>It is four.<turn|>",
    "two calls": f"<|channel>thought\nHm.<channel|>Well. {CALL}\n{CALL}<|tool_response>",
    "a call": f"{CALL}<|tool_response>",
    "cut call": '<|tool_call>call:weather{city:<|"|>Romeeeeeeeeeeeeee',
    "cut thought": "<|channel>thought\nTwo and twooooooooooooooo",
    "nothing": "<turn|>",
    "endless": "abc",
}
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    "strict": False,
}


USER = [{"role": "user", "content": "hello"}]


def ask(served, content, **more) -> Response:
    return served.client.responses.create(model="nano", input=content, **more)


def prompt(served) -> str:
    return TOKENIZER.decode(served.engine.requests[-1].prompt_ids, skip_special_tokens=False)


def test_simple_input(served):
    answer = ask(served, "hello")
    assert (answer.object, answer.status, answer.model, answer.error) == ("response", "completed", "nano", None)
    (message,) = answer.output
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    assert answer.output_text == message.content[0].text == "Hello!" and message.content[0].type == "output_text"
    assert answer.id.startswith("resp_") and message.id.startswith("msg_") and answer.completed_at
    request = served.engine.requests[-1]
    assert answer.usage.input_tokens == len(request.prompt_ids)
    assert answer.usage.output_tokens == len(ids("Hello!<turn|>"))
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


@pytest.mark.parametrize("text", ["hello", "two calls", "think", "nothing"])
def test_answers_have_every_field_of_the_official_type(served, text):
    body = {"input": text, "tools": [WEATHER], "reasoning": {"effort": "low"}, "metadata": {"a": "b"}}
    raw = httpx.post(f"{served.url}/v1/responses", json=body)
    answer = Response.model_validate(raw.json(), strict=True)
    assert answer.metadata == {"a": "b"} and answer.reasoning.effort == "low"
    assert [tool.model_dump(exclude_unset=True) for tool in answer.tools] == [WEATHER]


def test_cached_tokens(served):
    ask(served, "cached hello")
    again = ask(served, "cached hello")
    assert again.usage.input_tokens_details.cached_tokens == again.usage.input_tokens - 1


@pytest.mark.parametrize(("text", "kinds"), [("endless", ["message"]), ("cut thought", ["reasoning"])])
def test_max_output_tokens(served, text, kinds):
    answer = ask(served, text, max_output_tokens=24)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert [item.type for item in answer.output] == kinds and answer.output[-1].status == "incomplete"
    assert answer.usage.output_tokens == 24 and answer.completed_at is None


def test_reasoning(served):
    answer = ask(served, "think", reasoning={"effort": "high", "summary": "auto"})
    reasoning, message = answer.output
    assert (reasoning.type, reasoning.summary, message.type) == ("reasoning", [], "message")
    assert [(part.type, part.text) for part in reasoning.content] == [("reasoning_text", "Two and two.")]
    assert answer.output_text == "It is four."
    assert answer.usage.output_tokens_details.reasoning_tokens == len(ids("thought\nTwo and two."))


@pytest.mark.parametrize(("effort", "on"), [(None, False), ("none", False), ("low", True)])
def test_effort_asks_for_a_thought(served, effort, on):
    ask(served, "hello", reasoning={"effort": effort})
    assert (TOKENIZER.control.think in served.engine.requests[-1].prompt_ids) is on


def test_function_call(served):
    answer = ask(served, "a call", tools=[WEATHER])
    (call,) = answer.output
    assert (call.type, call.name, call.status, answer.status) == ("function_call", "weather", "completed", "completed")
    assert call.call_id.startswith("call_") and call.id.startswith("fc_")
    assert json.loads(call.arguments) == {"city": 'Rome, "IT"', "days": 3}
    assert "Tells the weather." in prompt(served)


def test_calls_stand_where_the_model_wrote_them(served):
    answer = ask(served, "two calls", tools=[WEATHER])
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call", "function_call"]
    assert answer.output[2].call_id != answer.output[3].call_id and answer.output_text == "Well. "


def test_one_call(served):
    answer = ask(served, "two calls", tools=[WEATHER], parallel_tool_calls=False)
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call"]
    assert answer.parallel_tool_calls is False


def test_tool_choice(served):
    answer = ask(served, "two calls", tools=[WEATHER], tool_choice="none")
    assert [item.type for item in answer.output] == ["reasoning", "message"] and answer.tool_choice == "none"
    assert TOKENIZER.control.tool_open not in served.engine.requests[-1].prompt_ids


def test_call_that_was_cut_off_is_left_out(served):
    answer = ask(served, "cut call", tools=[WEATHER], max_output_tokens=50)
    assert (answer.status, answer.output) == ("incomplete", [])


def test_function_call_output(served):
    call = ask(served, "a call", tools=[WEATHER]).output[0]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    answer = ask(served, [{"role": "user", "content": "weather?"}, call, result], tools=[WEATHER])
    assert answer.output_text == "It is sunny."
    assert 'call:weather{city:<|"|>Rome, "IT"<|"|>,days:3}<tool_call|><|tool_response>response:weather{' in prompt(
        served
    )


def test_output_that_comes_late_stands_behind_its_call(served):
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "rain"}]}
    user = {"role": "user", "content": "Hurry up!"}
    ask(served, [{"role": "user", "content": "a call"}, call, user, result], tools=[WEATHER])
    assert prompt(served).index("rain") < prompt(served).index("Hurry up!")


@pytest.mark.parametrize("with_ids", [True, False])
def test_history_with_and_without_ids(served, with_ids):
    first = ask(served, "two calls", tools=[WEATHER])
    items = [{"role": "user", "content": "two calls"}]
    items += [item.model_dump(exclude_none=True, exclude=None if with_ids else {"id"}) for item in first.output]
    items += [
        {"type": "function_call_output", "call_id": item.call_id, "output": "sunny"}
        for item in first.output
        if item.type == "function_call"
    ]
    assert ask(served, items, tools=[WEATHER]).output_text == "It is sunny."
    text = prompt(served)
    assert text.count("call:weather{") == 2 and text.count("response:weather{") == 2
    assert "<|channel>thought\nHm.\n<channel|>Well.<|tool_call>" in text


def test_roles_and_parts(served):
    items = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "input_text", "text": "hel"}, {"type": "input_text", "text": "lo"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hi."}], "type": "message", "phase": None},
        {"role": "user", "content": "hello", "made_up": 1},
    ]
    assert ask(served, items, extra_body={"made_up": {}}).output_text == "Hello!"
    text = prompt(served)
    assert "<|turn>system\nBe brief." in text and "<|turn>user\nhello<turn|>" in text and "<|turn>model\nHi." in text


def test_instructions_are_the_system_message(served):
    answer = ask(served, "hello", instructions="Speak like a pirate.")
    assert answer.instructions == "Speak like a pirate."
    assert "<|turn>system\nSpeak like a pirate.<turn|>" in prompt(served)
    ask(
        served,
        [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "hello"}],
        instructions="Hm.",
    )
    assert "<|turn>system\nHm. Be brief. <turn|>\n<|turn>user" in prompt(served)


def test_thought_that_nobody_can_read(served):
    ask(served, [{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"}, *USER])
    assert prompt(served).startswith("<bos><|turn>user\nhello")


def test_sampling(served):
    answer = ask(served, "hello", temperature=0.25, top_p=0.5)
    params = served.engine.requests[-1].params
    assert (params.temperature, params.top_p, params.top_k) == (0.25, 0.5, 64)
    assert (answer.temperature, answer.top_p) == (0.25, 0.5)
    assert ask(served, "hello").temperature == 1.0


def test_text_format_becomes_the_response_format_of_a_chat():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wish = {"type": "json_schema", "name": "thing", "schema": schema, "strict": True}
    body = ResponsesRequest.model_validate({"input": "x", "text": {"format": wish}})
    expected = {"name": "thing", "schema": schema, "strict": True}
    assert chat_fields(body, [], [])["response_format"] == {"type": "json_schema", "json_schema": expected}
    body = ResponsesRequest.model_validate({"input": "x", "text": {"format": {"type": "json_object"}}})
    assert chat_fields(body, [], [])["response_format"] == {"type": "json_object"}


def test_tool_choice_becomes_that_of_a_chat():
    body = {"input": "x", "tools": [WEATHER], "tool_choice": {"type": "function", "name": "weather"}}
    fields = chat_fields(ResponsesRequest.model_validate(body), [], [])
    assert fields["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert fields["tools"][0]["function"] == {name: WEATHER[name] for name in WEATHER if name != "type"}


def test_logprobs(served):
    include = ["message.output_text.logprobs"]
    whole = ask(served, "two calls", tools=[WEATHER], include=include, top_logprobs=2)
    (text,) = whole.output[1].content
    assert "".join(entry.token for entry in text.logprobs) == text.text == "Well. "
    assert all(entry.logprob < 0 and len(entry.top_logprobs) == 2 for entry in text.logprobs)
    assert bytes(byte for entry in text.logprobs for byte in entry.bytes) == text.text.encode()
    assert whole.top_logprobs == 2
    (text,) = ask(served, "hello").output[0].content
    assert text.logprobs == []
