"""What /v1/messages refuses, in Anthropic's shape."""

import anthropic
import httpx
import pytest

from g4jax.testing.fake_engine import FakeEngine
from server import serving
from server.app import create_app
from server.engine_client import EngineClient
from tests.server.conftest import answers, chat_format, listening, media_reader, model_info, running
from tests.server.test_anthropic_api import WEATHER, official, user

ANSWERS = {"endless": "abc"}
CALL = {"type": "tool_use", "id": "t", "name": "weather", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": "sunny"}


def post(served, path: str = "/v1/messages", **body) -> httpx.Response:
    return httpx.post(served.url + path, json={"model": "nano", "max_tokens": 20, "messages": user("hello")} | body)


def refused(answer: httpx.Response, status: int, kind: str) -> str:
    assert answer.status_code == status and answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"type", "error"} and body["type"] == "error"
    assert body["error"].keys() == {"type", "message"} and body["error"]["type"] == kind
    return body["error"]["message"]


def content(*blocks: dict) -> list[dict]:
    return [{"role": "user", "content": list(blocks)}]


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("model", {"model": None}),
        ("max_tokens", {"max_tokens": None}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_tokens", {"max_tokens": 512}),
        ("messages", {"messages": []}),
        ("messages", {"messages": user("1" * 600)}),
        ("messages[0].role", {"messages": [{"role": "tool", "content": "x"}]}),
        ("messages[0].content[0].type", {"messages": content({"text": "x"})}),
        ("messages[0].content[0].text", {"messages": content({"type": "text"})}),
        ("messages[0].content[0].type", {"messages": content({"type": "document", "source": {}})}),
        ("messages[0].content[0].source.type", {"messages": content({"type": "image", "source": {}})}),
        ("messages[0].content[0].type", {"messages": content(CALL)}),
        ("messages[0].content[0].tool_use_id", {"messages": content(RESULT)}),
        ("messages[1].content[0].type", {"messages": [*user("x"), {"role": "assistant", "content": [RESULT]}]}),
        (
            "messages[1].content[0].content[0].type",
            {
                "messages": [
                    {"role": "assistant", "content": [CALL]},
                    *content(RESULT | {"content": [{"type": "document"}]}),
                ]
            },
        ),
        ("system[0].type", {"system": [{"type": "image"}]}),
        ("temperature", {"temperature": -1}),
        ("top_k", {"top_k": 1.5}),
        ("stop_sequences[0]", {"stop_sequences": [""]}),
        ("tools[0].type", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        ("tools[0].input_schema", {"tools": [{"name": "f"}]}),
        ("tools[0].name", {"tools": [WEATHER | {"name": "no spaces"}]}),
        ("tool_choice.type", {"tool_choice": {"type": "all"}}),
        ("tool_choice.name", {"tool_choice": {"type": "tool"}, "tools": [WEATHER]}),
        ("tool_choice", {"tool_choice": {"type": "tool", "name": "other"}, "tools": [WEATHER]}),
        ("thinking.budget_tokens", {"thinking": {"type": "enabled", "budget_tokens": 0}}),
        ("thinking.type", {"thinking": {"type": "between_tools"}}),
    ],
)
def test_invalid_value_names_the_field(served, param, body):
    message = refused(post(served, **body), 400, "invalid_request_error")
    assert message.startswith(f"{param}: ") and served.healthy()


def test_document_is_named(served):
    message = refused(post(served, messages=content({"type": "document"})), 400, "invalid_request_error")
    assert "content of type 'document' is not supported yet" in message


def test_tool_of_another_type_is_named(served):
    with pytest.raises(anthropic.BadRequestError, match="web_search_20250305"):
        official(served).messages.create(
            model="nano",
            max_tokens=5,
            messages=user("hello"),
            tools=[{"type": "web_search_20250305", "name": "web_search"}],
        )


def test_unknown_model(served):
    with pytest.raises(anthropic.NotFoundError) as error:
        official(served).messages.create(model="claude", max_tokens=5, messages=user("hello"))
    assert error.value.type == "not_found_error" and "'claude'" in error.value.api_message
    refused(post(served, "/v1/messages/count_tokens", model="claude"), 404, "not_found_error")


def test_body_that_is_no_json_or_too_large(served, monkeypatch):
    refused(httpx.post(f"{served.url}/v1/messages", content=b"{"), 400, "invalid_request_error")
    monkeypatch.setattr(serving, "MAX_BODY_BYTES", 1000)
    refused(post(served, messages=user("x" * 1000)), 413, "request_too_large")


def test_unknown_route_and_method(served):
    refused(httpx.get(f"{served.url}/v1/messages/batches"), 404, "not_found_error")
    refused(httpx.get(f"{served.url}/v1/messages"), 405, "invalid_request_error")
    assert "type" not in httpx.get(f"{served.url}/v1/nothing").json()


def test_api_key():
    with running(FakeEngine(answers(ANSWERS)), api_key="secret") as server:
        more = {"model": "nano", "max_tokens": 5, "messages": user("hello")}
        for client in ({"api_key": "secret"}, {"auth_token": "secret"}):
            assert anthropic.Anthropic(base_url=server.url, **client).messages.create(**more).content
        with pytest.raises(anthropic.AuthenticationError) as error:
            official(server).messages.create(**more)
        assert error.value.type == "authentication_error"


def test_engine_that_dies():
    engine = FakeEngine(answers(ANSWERS), fail_after=8, tokens_per_step=3, step_s=0.01)
    with running(engine) as server:
        more = {"model": "nano", "max_tokens": 200, "messages": user("endless")}
        with pytest.raises(anthropic.APIStatusError, match="told to fail") as error:
            list(official(server).messages.create(stream=True, **more))
        assert error.value.type == "api_error"
        for stream in (False, True):
            with pytest.raises(anthropic.InternalServerError):
                official(server).messages.create(stream=stream, **more)


@pytest.mark.parametrize("stream", [False, True])
def test_error_before_the_first_token_is_an_ordinary_answer(stream):
    with running(FakeEngine(answers(ANSWERS), fail_after=1)) as server:
        refused(post(server, stream=stream), 500, "api_error")


def test_server_that_still_loads():
    client = EngineClient.__new__(EngineClient)
    client.info, client.failure, client.progress = None, None, None
    client.start = lambda: None
    with listening(create_app(client, chat_format(), model_info(), media_reader())) as url:
        body = {"model": "nano", "max_tokens": 5, "messages": user("hello")}
        answer = httpx.post(f"{url}/v1/messages", json=body)
        assert "loading" in refused(answer, 529, "overloaded_error") and int(answer.headers["retry-after"]) > 0
