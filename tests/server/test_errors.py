"""Everything that is refused, in OpenAI's shape, and a server that goes on."""

import httpx
import openai
import pytest

from g4jax.testing.fake_engine import FakeEngine
from server import serving
from server.app import create_app
from server.engine_client import EngineClient
from server.messages import Failed, Progress
from tests.server.conftest import answers, chat_format, listening, media_reader, model_info, running

ANSWERS = {"count": "one two three four<turn|>"}
CHAT = "/v1/chat/completions"
USER = [{"role": "user", "content": "count"}]
TOOL = {"type": "function", "function": {"name": "weather"}}


def post(served, path: str = CHAT, **request) -> httpx.Response:
    return httpx.post(served.url + path, **request)


def refused(answer: httpx.Response, status: int, param: str | None = None, code: str | None = None) -> str:
    """Checks the shape and returns the message."""
    assert answer.status_code == status and answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"error"}
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"} and (error["param"], error["code"]) == (param, code)
    return error["message"]


INVALID = [
    ("messages", None),
    ("messages", []),
    ("messages", "hello"),
    ("messages[0].role", [{"role": "king", "content": "x"}]),
    ("messages[0].role", [{"content": "x"}]),
    ("messages[0].content", [{"role": "user", "content": {"a": 1}}]),
    ("messages[1].content", [*USER, {"role": "user"}]),
    ("messages[0].content", [{"role": "user", "content": 5}]),
    ("messages[0].content[0].type", [{"role": "user", "content": [{"text": "x"}]}]),
    ("messages[0].content[0].text", [{"role": "user", "content": [{"type": "text"}]}]),
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", "0.5"),
    ("temperature", True),
    ("top_p", 0),
    ("top_p", 1.1),
    ("top_k", -2),
    ("top_k", 1.5),
    ("min_p", 1.1),
    ("presence_penalty", 2.5),
    ("frequency_penalty", -2.5),
    ("repetition_penalty", 0),
    ("n", 0),
    ("n", 129),
    ("max_tokens", 0),
    ("max_completion_tokens", -1),
    ("min_tokens", -1),
    ("seed", 2**63),
    ("stop", ["x"] * 17),
    ("stop[0]", ""),
    ("stop[0]", [5]),
    ("stop_token_ids[0]", [-1]),
    ("stop_token_ids", [10**6]),
    ("stream", "yes"),
    ("stream_options", {"include_usage": True}),
    ("tools[0].type", [{"function": {"name": "f"}}]),
    ("tools[0].function.name", [{"type": "function", "function": {"name": "no spaces"}}]),
    ("tool_choice", "always"),
    ("tool_choice.type", {}),
    ("tool_choice", "required"),
    ("tool_choice", {"type": "function", "function": {"name": "weather"}}),
    ("reasoning_effort", "enormous"),
    ("chat_template_kwargs", {"messages": []}),
    ("chat_template_kwargs.enable_thinking", {"enable_thinking": "yes"}),
    ("top_logprobs", 3),
    ("top_logprobs", 21),
    ("response_format.type", {"type": "poem"}),
]


@pytest.mark.parametrize(("param", "value"), INVALID)
def test_invalid_value_names_the_field(served, param, value):
    field = param.partition(".")[0].partition("[")[0]
    message = refused(post(served, json={"messages": USER} | {field: value}), 400, param)
    assert message.startswith(f"{param}: ")
    assert served.healthy()


UNSUPPORTED = [
    ("best_of", "/v1/completions", {"prompt": "x", "best_of": 2}),
    ("suffix", "/v1/completions", {"prompt": "x", "suffix": "after"}),
    ("messages[0].content[0].type", CHAT, {"messages": [{"role": "user", "content": [{"type": "file"}]}]}),
]


@pytest.mark.parametrize(("param", "path", "body"), UNSUPPORTED)
def test_what_is_not_there_yet_is_said(served, param, path, body):
    message = refused(post(served, path, json=body), 400, param, "unsupported_parameter")
    assert "not supported yet" in message


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"text"', b"5", b"null", b'{"messages": [{"role": "user"', b"\xff"]
)
def test_body_that_is_no_request(served, body):
    assert refused(post(served, content=body), 400)
    assert served.healthy()


def test_body_that_is_too_large(served, monkeypatch):
    monkeypatch.setattr(serving, "MAX_BODY_BYTES", 1000)
    refused(post(served, json={"messages": [{"role": "user", "content": "x" * 1000}]}), 413)
    assert served.healthy()


def test_content_type_does_not_matter(served):
    body = b'{"messages": [{"role": "user", "content": "count"}]}'
    answer = post(served, content=body, headers={"content-type": "text/plain"})
    assert answer.json()["choices"][0]["message"]["content"] == "one two three four"


def test_lone_surrogate_and_deep_nesting(served):
    refused(post(served, content=b'{"messages": [{"role": "user", "content": "\\ud800"}]}'), 400)
    deep = b'{"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": ' + b'{"a":' * 5000
    refused(post(served, content=deep), 400)
    assert served.healthy()


def test_arguments_of_a_past_call_must_be_an_object(served):
    def asked(arguments):
        call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": arguments}}
        return {"messages": [*USER, {"role": "assistant", "tool_calls": [call]}, *USER]}

    for arguments in ("{", "[1]", "5"):
        refused(post(served, json=asked(arguments)), 400, "messages[1].tool_calls[0].function.arguments")
    for arguments in ("", "{}", {"city": "Rome"}, None):
        assert post(served, json=asked(arguments)).status_code == 200


def test_min_tokens_above_max_tokens(served):
    refused(post(served, json={"messages": USER, "min_tokens": 9, "max_tokens": 5}), 400, "min_tokens")


def test_unknown_model(served):
    with pytest.raises(openai.NotFoundError) as error:
        served.client.chat.completions.create(model="gpt-9", messages=USER)
    assert (error.value.code, error.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        served.client.models.retrieve("gpt-9")


def test_unknown_route_and_method(served):
    refused(httpx.get(f"{served.url}/v1/nothing"), 404)
    refused(httpx.get(f"{served.url}{CHAT}"), 405)


@pytest.mark.parametrize("stream", [False, True])
def test_prompt_longer_than_the_context(served, stream):
    long = [{"role": "user", "content": "1" * 600}]
    message = refused(
        post(served, json={"messages": long, "stream": stream}), 400, "messages", "context_length_exceeded"
    )
    length = next(int(word) for word in message.split() if word.isdigit())
    assert 600 < length < 620 and "at most 511" in message
    body = {"prompt": [5] * 512, "max_tokens": 1, "stream": stream}
    message = refused(post(served, "/v1/completions", json=body), 400, "prompt", "context_length_exceeded")
    assert "512 tokens" in message and served.healthy()


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_more_tokens_than_the_context_has_room_for(served, field):
    message = refused(post(served, json={"messages": USER, field: 512}), 400, field, "context_length_exceeded")
    room = int(message.split()[-1])
    assert post(served, json={"messages": USER, field: room, "ignore_eos": True}).status_code == 200
    refused(post(served, json={"messages": USER, field: room + 1}), 400, field, "context_length_exceeded")


def test_api_key():
    with running(FakeEngine(answers(ANSWERS)), api_key="secret") as server:
        assert server.client.chat.completions.create(model="nano", messages=USER).choices
        with pytest.raises(openai.AuthenticationError) as error:
            server.client.with_options(api_key="wrong").models.list()
        assert error.value.code == "invalid_api_key"
        assert refused(httpx.get(f"{server.url}/v1/models"), 401, None, "invalid_api_key")
        assert server.healthy()


def test_tools_without_a_parser():
    with running(FakeEngine(answers(ANSWERS)), parse_tools=False) as server:
        refused(post(server, json={"messages": USER, "tools": [TOOL]}), 400, "tools")
        assert post(server, json={"messages": USER, "tools": [TOOL], "tool_choice": "none"}).status_code == 200


def test_engine_that_dies():
    engine = FakeEngine(answers({}, otherwise="endless"), fail_after=8, tokens_per_step=3, step_s=0.01)
    with running(engine) as server:
        with pytest.raises(openai.APIError, match="told to fail"):
            for _ in server.client.chat.completions.create(model="nano", messages=USER, stream=True):
                pass
        with pytest.raises(openai.InternalServerError):
            server.client.chat.completions.create(model="nano", messages=USER)
        health = httpx.get(f"{server.url}/health")
        assert health.status_code == 503 and "told to fail" in health.json()["message"]


def test_whole_answer_of_an_engine_that_dies():
    with running(FakeEngine(answers({}, otherwise="endless"), fail_after=2)) as server:
        refused(post(server, json={"messages": USER}), 500, None, "engine_died")


def test_health_while_loading():
    client = EngineClient.__new__(EngineClient)
    client.info, client.failure, client.progress = None, None, Progress("compiling", 3, 12)
    client.start = lambda: None
    with listening(create_app(client, chat_format(), model_info(), media_reader())) as url:
        health = httpx.get(f"{url}/health")
        assert health.status_code == 503 and health.json()["message"] == "compiling"
        answer = httpx.post(url + CHAT, json={"messages": USER})
        refused(answer, 503, None, "engine_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        client.failure = Failed("no memory")
        assert httpx.get(f"{url}/health").json()["message"] == "no memory"
