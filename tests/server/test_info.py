"""What the server tells of itself, and what its keeper may ask it to do."""

import json
import threading
from importlib.metadata import version

import httpx
import openai
import pytest

from g4jax.testing.fake_engine import FakeEngine
from tests.server.conftest import MAX_MODEL_LEN, answers, running, until

ANSWERS = {"endless": "abc"}
USER = [{"role": "user", "content": "endless"}]
CHAT = "/v1/chat/completions"


def engine(**values) -> FakeEngine:
    return FakeEngine(answers(ANSWERS), **{"max_model_len": 10**6, "step_s": 0.005} | values)


def error_of(answer: httpx.Response, status: int) -> dict:
    assert answer.status_code == status
    return answer.json()["error"]


@pytest.mark.parametrize("path", ["/get_server_info", "/server_info"])
def test_server_info(served, path):
    facts = httpx.get(served.url + path).json()
    assert facts["version"] == version("g4jax") and facts["jax_version"] == version("jax")
    assert (facts["served_model_name"], facts["model_path"]) == ("nano", "/nano")
    assert (facts["max_model_len"], facts["max_batch"]) == (MAX_MODEL_LEN, 64)
    assert facts["options"]["mesh"] == "tp=1" and facts["options"]["dtype"] == "auto"
    assert httpx.get(served.url + path).json()["uptime_s"] > facts["uptime_s"] > 0
    until(lambda: httpx.get(served.url + path).json()["internal_states"])
    assert httpx.get(served.url + path).json()["internal_states"][0]["running"] == 0


def test_version(served):
    assert httpx.get(f"{served.url}/version").json() == {"version": version("g4jax")}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_flush_cache_forgets_prefixes(method):
    def cached() -> int:
        answer = served.client.completions.create(model="nano", prompt=[5, 6, 7, 8], max_tokens=2)
        return answer.usage.prompt_tokens_details.cached_tokens

    with running(engine()) as served:
        assert (cached(), cached()) == (0, 3)
        answer = httpx.request(method, f"{served.url}/flush_cache")
        assert answer.status_code == 200 and answer.json() == {"success": True}
        assert (cached(), cached()) == (0, 3)


def test_flush_cache_of_a_dead_engine():
    with running(engine(fail_after=1)) as served:
        with pytest.raises(openai.InternalServerError):
            served.client.chat.completions.create(model="nano", messages=USER)
        assert error_of(httpx.post(f"{served.url}/flush_cache"), 503)["code"] == "engine_unavailable"


def test_aborted_stream_ends_with_an_error():
    with running(engine()) as served, httpx.Client(base_url=served.url) as other:
        with httpx.stream("POST", served.url + CHAT, json={"messages": USER, "stream": True, "n": 2}) as stream:
            lines = (line for line in stream.iter_lines() if line)
            rid = json.loads(next(lines).removeprefix("data: "))["id"]
            assert error_of(other.post("/abort_request", json={"rid": rid + "0"}), 404)["code"] == "request_not_found"
            assert other.post("/abort_request", json={"rid": rid}).json() == {"success": True}
            *_, last, done = lines
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "request_aborted"
        assert done == "data: [DONE]"
        until(lambda: len(served.engine.aborted) == 2 and not served.engine.has_work)
        assert error_of(other.post("/abort_request", json={"rid": rid}), 404)


def test_abort_all_ends_whole_answers_too():
    results = []

    def ask() -> None:
        results.append(httpx.post(served.url + CHAT, json={"messages": USER}))

    with running(engine()) as served:
        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        until(lambda: len(served.engine.requests) == 3)
        assert httpx.post(f"{served.url}/abort_request", json={"abort_all": True}).json() == {"success": True}
        for thread in asking:
            thread.join(5)
        # Not one of the statuses after which clients ask again.
        assert [error_of(answer, 400)["code"] for answer in results] == ["request_aborted"] * 3
        assert httpx.post(f"{served.url}/abort_request", json={"abort_all": True}).json() == {"success": True}


def test_abort_nobody(served):
    assert error_of(httpx.post(f"{served.url}/abort_request", json={}), 400)["param"] == "rid"


def test_full_queue_is_refused_and_then_served():
    with running(engine(max_batch=2), max_queued=1) as served:
        streams = [served.client.chat.completions.create(model="nano", messages=USER, stream=True, n=n) for n in (1, 2)]
        for stream in streams:
            next(stream)
        for stream in (False, True):
            refused = httpx.post(served.url + CHAT, json={"messages": USER, "stream": stream})
            assert error_of(refused, 503)["code"] == "overloaded"
            assert int(refused.headers["retry-after"]) > 0
        assert (
            'request_failure_total{model_name="nano",reason="overloaded"} 2' in httpx.get(f"{served.url}/metrics").text
        )
        streams[1].close()
        patient = served.client.with_options(max_retries=3)
        assert patient.chat.completions.create(model="nano", messages=USER, max_tokens=2).choices


def test_a_request_larger_than_the_queue_is_served_when_there_is_room():
    with running(engine(max_batch=2), max_queued=0) as served:
        assert len(served.client.chat.completions.create(model="nano", messages=USER, n=5, max_tokens=2).choices) == 5


def test_a_wrong_key_is_refused_in_the_shape_of_the_address(locked):
    answer = httpx.post(f"{locked.url}/v1/messages", headers={"x-api-key": "wrong"}, json={})
    assert error_of(answer, 401)["type"] == "authentication_error" and answer.json()["type"] == "error"
    assert answer.headers["www-authenticate"] == "Bearer" and answer.headers["x-request-id"]


OPEN = ["/health", "/metrics", "/version", "/docs", "/openapi.json"]
GUARDED = [
    ("GET", "/v1/models"),
    ("GET", "/get_server_info"),
    ("GET", "/server_info"),
    ("GET", "/flush_cache"),
    ("POST", "/flush_cache"),
    ("POST", "/abort_request"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("POST", "/apply-template"),
    ("POST", CHAT),
    ("GET", "/nothing"),
]


@pytest.fixture(scope="module")
def locked():
    with running(engine(), api_key="secret") as server:
        yield server


def test_open_paths(locked):
    assert [httpx.get(locked.url + path).status_code for path in OPEN] == [200] * len(OPEN)


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_guarded_paths(locked, method, path):
    for headers in ({}, {"authorization": "secret"}, {"authorization": "Bearer secre"}, {"x-api-key": "wrong"}):
        answer = httpx.request(method, locked.url + path, headers=headers, json={})
        assert error_of(answer, 401)["code"] == "invalid_api_key"
    for headers in ({"authorization": "Bearer secret"}, {"authorization": "bearer secret"}, {"x-api-key": "secret"}):
        assert httpx.request(method, locked.url + path, headers=headers, json={}).status_code != 401
