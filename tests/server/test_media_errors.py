"""Media that cannot be served: each is a 400 that names its part, and the server goes on."""

import httpx
import pytest

from g4jax.testing.fake_engine import FakeEngine
from server import media_reader as media_reader_module
from server.media_reader import MAX_MEDIA
from tests.server.conftest import answers, media_reader, running
from tests.server.media_samples import audio_part, data_url, film, image_part, picture, sound, text, video_part, web

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def served():
    engine = FakeEngine(answers({}), max_model_len=1024, tokens_per_step=4)
    with running(engine, media=media_reader(timeout_s=2.0, max_bytes=2**22)) as server:
        yield server


@pytest.fixture(scope="module")
def reaching():
    """A server that may fetch from this machine too."""
    engine = FakeEngine(answers({}), max_model_len=1024, tokens_per_step=4)
    with running(engine, media=media_reader(allow_private=True, timeout_s=1.0, max_bytes=2**16)) as server:
        yield server


def url_part(url: str, kind: str = "image_url") -> dict:
    return {"type": kind, kind: {"url": url}}


def refused(served, *content: dict, role: str = "user", status: int = 400, **body) -> dict:
    messages = [{"role": "user", "content": "x"}, {"role": role, "content": list(content)}]
    answer = httpx.post(served.url + CHAT, json={"messages": messages} | body, timeout=20)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["message"].startswith(f"{error['param']}: ") and served.healthy()
    return error


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("field", "part", "reason"),
    [
        ("image_url.url", url_part("data:image/png;base64,not base64!"), "base64"),
        ("image_url.url", image_part(b"GIF89a and then nothing"), ""),
        ("image_url.url", image_part(picture()[:100]), ""),
        ("image_url.url", image_part(sound()), "image"),
        ("image_url.url", image_part(b""), ""),
        ("image_url.url", url_part(""), ""),
        ("image_url.url", url_part("ftp://example.com/a.png"), "http"),
        ("image_url", {"type": "image_url", "image_url": "no address"}, ""),
        ("input_audio.data", {"type": "input_audio", "input_audio": {"data": "§", "format": "wav"}}, "base64"),
        ("input_audio.data", audio_part(picture()), ""),
        ("input_audio.data", audio_part(sound()[:20]), ""),
        ("audio_url.url", url_part(data_url(b"RIFF", "audio/wav"), "audio_url"), ""),
        ("video_url.url", video_part(picture()[:50]), ""),
        ("video_url.url", video_part(film()[:300]), ""),
        ("image_url.detail", image_part(picture(), detail="huge"), "low"),
        ("image_url", {"type": "image_url"}, "required"),
        ("image_url.url", {"type": "image_url", "image_url": {}}, "required"),
        ("image_url.url", {"type": "image_url", "image_url": {"url": 5}}, "string"),
        ("type", {"type": "file", "file": {"file_data": "x"}}, "'file'"),
    ],
)
def test_part_is_named(served, field, part, reason, stream):  # row 159
    error = refused(served, text("x"), image_part(picture()), part, stream=stream)
    assert error["param"] == f"messages[1].content[2].{field}" and reason in error["message"]
    assert len(error["message"]) > len(error["param"]) + 10 and error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "http://127.0.0.1:1/a.png",
        "http://localhost/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/a.png",
        "http://[::ffff:10.0.0.1]/a.png",
    ],
)
@pytest.mark.parametrize("kind", ["image_url", "audio_url", "video_url"])
def test_nothing_of_this_machine_or_its_network_is_read(served, url, kind):  # row 160
    assert refused(served, url_part(url, kind))["param"] == f"messages[1].content[0].{kind}.url"


def test_address_that_gives_nothing(reaching):  # row 159
    with web({"/large": b"x" * 2**17}) as site:
        assert "404" in refused(reaching, url_part(f"{site}/nothing"))["message"]
        assert "second" in refused(reaching, url_part(f"{site}/slow"))["message"]
        assert str(2**16) in refused(reaching, url_part(f"{site}/large"))["message"]
    refused(reaching, url_part(f"{site}/gone"))


def test_a_template_error_does_not_wait_for_the_media(reaching):
    with web({}) as site:
        error = refused(reaching, url_part(f"{site}/slow"), role="assistant")
    assert error["param"] == "messages[1].content[0].type" and "assistant" in error["message"]


def test_nothing_is_fetched_for_a_model_that_is_not_here(served, monkeypatch):
    fetched: list[str] = []

    async def note(url: str, _) -> bytes:
        fetched.append(url)
        return picture()

    monkeypatch.setattr(media_reader_module, "fetch", note)
    body = {"messages": [{"role": "user", "content": [url_part("http://example.com/a.png")]}]}
    answer = httpx.post(served.url + CHAT, json=body | {"model": "other"})
    assert (answer.status_code, answer.json()["error"]["param"], fetched) == (404, "model", [])
    assert httpx.post(served.url + CHAT, json=body).status_code == 200 and len(fetched) == 1


def test_more_media_than_a_request_may_have(served):  # row 161
    tiny = image_part(picture(16, 16))
    error = refused(served, *[tiny] * (MAX_MEDIA + 1))
    assert str(MAX_MEDIA) in error["message"] and error["param"] == f"messages[1].content[{MAX_MEDIA}].image_url.url"


@pytest.mark.parametrize("role", ["system", "developer", "assistant"])
@pytest.mark.parametrize("part", [image_part(picture()), audio_part(sound()), video_part(film())])
def test_only_users_and_tools_show_media(served, role, part):
    error = refused(served, text("x"), part, role=role)
    assert error["param"] == "messages[1].content[1].type" and role in error["message"]


def test_media_that_the_template_does_not_write(served):
    """A tool's result that no call of the assistant's goes before."""
    error = refused(served, image_part(picture()), role="tool", tool_call_id="c1")
    assert error["param"] == "messages" and "image" in error["message"]


@pytest.mark.parametrize("limit", [0, 100, 2240, 70.5, "70", True])
def test_most_tokens_that_no_model_takes(served, limit):  # row 162
    part = image_part(picture())
    assert refused(served, part, max_soft_tokens=limit)["param"] == "max_soft_tokens"
    wishes = {"max_soft_tokens": limit}
    assert refused(served, part, mm_processor_kwargs=wishes)["param"] == "mm_processor_kwargs.max_soft_tokens"


def test_image_that_is_longer_than_the_context(served):
    error = refused(served, image_part(picture(400, 300), detail="high"))
    assert (error["param"], error["code"]) == ("messages", "context_length_exceeded")


@pytest.mark.parametrize("part", [image_part(picture()), audio_part(sound()), video_part(film())])
@pytest.mark.parametrize("path", [CHAT, "/tokenize"])
def test_model_of_text_alone(part, path):  # row 164
    with running(FakeEngine(answers({})), media=media_reader(None)) as server:
        answer = httpx.post(server.url + path, json={"messages": [{"role": "user", "content": [part]}]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "unsupported_parameter")
    assert "this model takes no" in error["message"] and error["param"].startswith("messages[0].content[0].")


def test_model_that_sees_and_does_not_hear():  # row 164
    with running(FakeEngine(answers({})), media=media_reader("31b")) as server:
        error = refused(server, audio_part(sound()))
        assert "this model takes no audio" in error["message"]
        assert error["param"] == "messages[1].content[0].input_audio.data"
        body = {"messages": [{"role": "user", "content": [image_part(picture())]}]}
        assert httpx.post(server.url + CHAT, json=body).status_code == 200


def test_nothing_reaches_the_engine_of_a_request_with_a_bad_medium(served):
    before = len(served.engine.requests)
    error = refused(served, image_part(picture()), url_part("data:image/png;base64,AAAA"), image_part(picture()), n=2)
    assert error["param"] == "messages[1].content[1].image_url.url" and len(served.engine.requests) == before
