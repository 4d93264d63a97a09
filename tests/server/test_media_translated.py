"""Media in the words of the other APIs: the engine is given the same as of a chat."""

import base64

import httpx
import pytest

from g4jax.testing.fake_engine import FakeEngine
from tests.server.conftest import answers, media_reader, running
from tests.server.media_samples import audio_part, data_url, image_part, picture, placed, placeholders, sound, text

PICTURE = picture()
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
BLOCK = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PICTURE).decode()},
}
INPUT_IMAGE = {"type": "input_image", "image_url": data_url(PICTURE), "detail": "auto"}
TOOL = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
FUNCTION = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def served():
    with running(FakeEngine(answers({}), max_model_len=2048, tokens_per_step=4)) as server:
        yield server


def asked(served, path: str, **body):
    """(answer, what the engine was asked)"""
    answer = httpx.post(served.url + path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json(), served.engine.requests[-1]


def refused(served, path: str, **body) -> dict:
    answer = httpx.post(served.url + path, json=body)
    assert answer.status_code == 400 and served.healthy(), answer.text
    return answer.json()["error"]


def user(*content: dict) -> list[dict]:
    return [{"role": "user", "content": list(content)}]


def messages(served, *content: dict):
    return asked(served, MESSAGES, model="nano", max_tokens=8, messages=user(*content))


def test_image_in_a_response(served):
    _, chat = asked(served, CHAT, messages=user(text("see"), image_part(PICTURE)))
    answer, request = asked(served, RESPONSES, input=user({"type": "input_text", "text": "see"}, INPUT_IMAGE))
    assert request.content == chat.content and placed(request) == placeholders(request)
    assert answer["usage"]["input_tokens"] == len(chat.prompt_ids)


def test_detail_of_an_image_in_a_response(served):
    counts = [
        asked(served, RESPONSES, input=user(INPUT_IMAGE | {"detail": detail}))[1].media[0].input.num_tokens
        for detail in ("low", "high")
    ]
    assert counts[0] <= 70 and 900 <= counts[1] <= 1120


def test_sound_in_a_response(served):
    _, chat = asked(served, CHAT, messages=user(audio_part(sound())))
    _, request = asked(served, RESPONSES, input=user(audio_part(sound())))
    assert request.content == chat.content and request.media[0].input.kind == "audio"


def test_image_of_an_earlier_response(served):
    first, before = asked(served, RESPONSES, input=user(INPUT_IMAGE))
    _, request = asked(served, RESPONSES, input="and now?", previous_response_id=first["id"])
    assert request.media[0].input.digest == before.media[0].input.digest
    items = httpx.get(f"{served.url}{RESPONSES}/{first['id']}/input_items").json()["data"]
    assert items[0]["content"] == [INPUT_IMAGE]


def test_image_as_the_output_of_a_function(served):
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": [INPUT_IMAGE]}
    _, request = asked(served, RESPONSES, input=[*user({"type": "input_text", "text": "x"}), call, output])
    assert placed(request) == placeholders(request) and len(request.media) == 1


@pytest.mark.parametrize(
    ("field", "part", "role"),
    [
        ("image_url", {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}, "user"),
        ("image_url", {"type": "input_image"}, "user"),
        ("file_id", {"type": "input_image", "file_id": "file-1"}, "user"),
        ("detail", INPUT_IMAGE | {"detail": "huge"}, "user"),
        ("input_audio.data", {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "user"),
        ("type", {"type": "input_file", "file_id": "file-1"}, "user"),
        ("type", INPUT_IMAGE, "system"),
        ("type", INPUT_IMAGE, "assistant"),
    ],
)
def test_part_of_a_response_is_named(served, field, part, role):
    item = {"role": role, "content": [{"type": "input_text", "text": "x"}, part]}
    error = refused(served, RESPONSES, instructions="Look.", input=[*user(INPUT_IMAGE), item])
    assert error["param"] == f"input[1].content[1].{field}" and error["message"].startswith(f"{error['param']}: ")


def test_image_in_a_message(served):
    _, chat = asked(served, CHAT, messages=user(image_part(PICTURE), text("see")))
    answer, request = messages(served, BLOCK, text("see"))
    assert request.content == chat.content and placed(request) == placeholders(request)
    body = {"model": "nano", "messages": user(BLOCK, text("see"))}
    counted = httpx.post(f"{served.url}{MESSAGES}/count_tokens", json=body).json()["input_tokens"]
    usage = answer["usage"]
    assert counted == len(chat.prompt_ids) == usage["input_tokens"] + usage["cache_read_input_tokens"]


def test_image_by_its_address_in_a_message(served):
    by_address = {"type": "image", "source": {"type": "url", "url": data_url(PICTURE)}}
    assert messages(served, by_address)[1].content == messages(served, BLOCK)[1].content


def test_image_in_a_tool_result_of_a_message(served):
    call = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [text("a"), BLOCK, text("b")]}
    conversation = [*user(text("x")), {"role": "assistant", "content": [call]}, *user(result)]
    _, request = asked(served, MESSAGES, model="nano", max_tokens=8, tools=[TOOL], messages=conversation)
    assert placed(request) == placeholders(request) and len(request.media) == 1


@pytest.mark.parametrize(
    ("field", "block", "role"),
    [
        ("source.data", BLOCK | {"source": BLOCK["source"] | {"data": "AAAA"}}, "user"),
        ("source.url", BLOCK | {"source": {"type": "url", "url": "file:///etc/passwd"}}, "user"),
        ("source.type", BLOCK | {"source": {"type": "file", "file_id": "f1"}}, "user"),
        ("source.data", BLOCK | {"source": {"type": "base64"}}, "user"),
        ("type", BLOCK, "assistant"),
        ("type", BLOCK, "system"),
        ("type", {"type": "document", "source": {}}, "user"),
    ],
)
def test_block_of_a_message_is_named(served, field, block, role):
    conversation = [*user(text("x")), {"role": role, "content": [text("x"), block]}]
    body = {"model": "nano", "max_tokens": 8, "system": "Look.", "messages": conversation}
    message = refused(served, MESSAGES, **body)["message"]
    assert message.startswith(f"messages[1].content[1].{field}: ")


def test_block_of_a_tool_result_is_named(served):
    call = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
    broken = BLOCK | {"source": BLOCK["source"] | {"data": "AAAA"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [text("a"), broken]}
    conversation = [*user(text("x")), {"role": "assistant", "content": [call]}, *user(text("y"), result)]
    message = refused(served, MESSAGES, model="nano", max_tokens=8, tools=[TOOL], messages=conversation)["message"]
    assert message.startswith("messages[2].content[1].content[1].source.data: ")


def test_model_of_text_alone():
    with running(FakeEngine(answers({})), media=media_reader(None)) as server:
        error = refused(server, RESPONSES, input=user(INPUT_IMAGE))
        assert error["param"] == "input[0].content[0].image_url" and "takes no images" in error["message"]
