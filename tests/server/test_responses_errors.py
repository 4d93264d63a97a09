"""What /v1/responses refuses, each with the name of its own field."""

import httpx
import openai
import pytest

from g4jax.testing.fake_engine import FakeEngine
from tests.server.conftest import answers, running

ANSWERS = {"endless": "abc"}
CALL = {"type": "function_call", "call_id": "c", "name": "f"}
USER = {"role": "user", "content": "hello"}


def refused(served, body: dict, param: str | None, code: str | None = None, status: int = 400) -> str:
    answer = httpx.post(f"{served.url}/v1/responses", json={"input": "hello"} | body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"} and (error["param"], error["code"]) == (param, code)
    assert served.healthy()
    return error["message"]


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("input", {"input": None}),
        ("input", {"input": []}),
        ("input", {"input": 5}),
        ("input[0].type", {"input": [{"content": "x"}]}),
        ("input[0].role", {"input": [{"role": "king", "content": "x"}]}),
        ("input[1].content", {"input": [USER, {"role": "user"}]}),
        ("input[0].content[0].text", {"input": [{"role": "user", "content": [{"type": "input_text"}]}]}),
        ("input[0].name", {"input": [{"type": "function_call", "call_id": "c", "arguments": "{}"}]}),
        ("input[0].arguments", {"input": [CALL | {"arguments": "["}]}),
        ("input[0].arguments", {"input": [CALL | {"arguments": "1"}]}),
        ("input[0].arguments", {"input": [CALL | {"arguments": '{"a": "\\ud800"}'}]}),
        ("input[0].call_id", {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}),
        ("input[0].id", {"input": [{"type": "item_reference", "id": "msg_unknown"}]}),
        ("max_output_tokens", {"max_output_tokens": 0}),
        ("temperature", {"temperature": 2.5}),
        ("top_p", {"top_p": 0}),
        ("top_logprobs", {"top_logprobs": 3}),
        ("top_logprobs", {"top_logprobs": 21, "include": ["message.output_text.logprobs"]}),
        ("reasoning.effort", {"reasoning": {"effort": "enormous"}}),
        ("tools[0].type", {"tools": [{"type": "web_search"}]}),
        ("tools[0].name", {"tools": [{"type": "function", "name": "no spaces"}]}),
        ("tool_choice", {"tool_choice": "always"}),
        ("tool_choice", {"tool_choice": "required"}),
        ("tool_choice", {"tool_choice": {"type": "function", "name": "weather"}}),
        ("tool_choice.type", {"tool_choice": {"type": "web_search"}}),
        ("text.format.type", {"text": {"format": {"type": "poem"}}}),
        ("text.format.schema", {"text": {"format": {"type": "json_schema", "name": "a"}}}),
        ("metadata", {"metadata": {str(i): "x" for i in range(17)}}),
        ("metadata.a", {"metadata": {"a": "x" * 513}}),
        ("truncation", {"truncation": "always"}),
    ],
)
def test_invalid_value_names_the_field(served, param, body):
    assert refused(served, body, param).startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("background", {"background": True}),
        ("conversation", {"conversation": "conv_1"}),
        ("prompt", {"prompt": {"id": "pmpt_1"}}),
        ("truncation", {"truncation": "auto"}),
        ("input[1].type", {"input": [USER, {"type": "web_search_call", "id": "ws_1"}]}),
        ("input[0].content[0].type", {"input": [{"role": "user", "content": [{"type": "input_file"}]}]}),
    ],
)
def test_what_is_not_there_yet_is_said(served, param, body):
    assert "not supported yet" in refused(served, body, param, "unsupported_parameter")


def test_invalid_tool_type_is_named(served):
    with pytest.raises(openai.BadRequestError, match="web_search"):
        served.client.responses.create(model="nano", input="hello", tools=[{"type": "web_search"}])


def test_unknown_previous_response(served):
    with pytest.raises(openai.NotFoundError) as error:
        served.client.responses.create(model="nano", input="hello", previous_response_id="resp_unknown")
    assert (error.value.code, error.value.param) == ("previous_response_not_found", "previous_response_id")
    assert error.value.type == "invalid_request_error" and "resp_unknown" in error.value.message


def test_unknown_model(served):
    refused(served, {"model": "gpt-9"}, "model", "model_not_found", 404)


@pytest.mark.parametrize("stream", [False, True])
def test_input_longer_than_the_context(served, stream):
    refused(served, {"input": "1" * 600, "stream": stream}, "input", "context_length_exceeded")
    refused(served, {"max_output_tokens": 512, "stream": stream}, "max_output_tokens", "context_length_exceeded")


def test_engine_that_dies():
    engine = FakeEngine(answers(ANSWERS), fail_after=8, tokens_per_step=3, step_s=0.01)
    with running(engine) as server:
        events = list(server.client.responses.create(model="nano", input="endless", stream=True))
        assert (events[0].type, events[-1].type) == ("response.created", "response.failed")
        assert events[-1].response.status == "failed" and events[-1].response.error.code == "server_error"
        assert "told to fail" in events[-1].response.error.message
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError):
                server.client.responses.create(model="nano", input="endless", stream=stream)


def test_api_key():
    with running(FakeEngine(answers(ANSWERS)), api_key="secret") as server:
        assert server.client.responses.create(model="nano", input="hello").output_text == "Hello!"
        with pytest.raises(openai.AuthenticationError):
            server.client.with_options(api_key="wrong").responses.create(model="nano", input="hello")
