"""Images, sounds and videos in a chat: what the engine is given of them, and what the client is charged."""

import httpx
import numpy as np
import pytest

from g4jax.media.mel import log_mel
from g4jax.testing.fake_engine import FakeEngine
from tests.server.chats import WEATHER
from tests.server.conftest import TOKENIZER, answers, media_reader, running
from tests.server.media_samples import (
    audio_part,
    data_url,
    film,
    image_part,
    picture,
    placed,
    placeholders,
    sound,
    text,
    video_part,
    web,
)

PICTURE = picture()
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    (folder / "picture.png").write_bytes(PICTURE)
    return folder


@pytest.fixture(scope="module")
def served(folder):
    engine = FakeEngine(answers({}), max_model_len=4096, tokens_per_step=4)
    with running(engine, media=media_reader(allow_private=True, local_root=folder)) as server:
        yield server


def chat(served, *content: dict, **body):
    """(answer, what the engine was asked)"""
    messages = [{"role": "user", "content": list(content)}]
    answer = httpx.post(f"{served.url}/v1/chat/completions", json={"messages": messages} | body)
    assert answer.status_code == 200, answer.text
    return answer.json(), served.engine.requests[-1]


def test_image_reaches_the_engine(served):
    answer, request = chat(served, text("What is"), image_part(PICTURE), text("this?"))
    (only,) = request.media
    ((_, begin, end),) = placeholders(request)
    assert (only.start, only.end) == (begin, end) and only.input.num_tokens == np.prod(only.input.grid) <= 70
    assert (only.input.data.shape, only.input.data.dtype) == ((9 * only.input.num_tokens, 768), np.uint8)
    assert answer["usage"]["prompt_tokens"] == len(request.prompt_ids) > only.input.num_tokens
    around = TOKENIZER.decode(request.prompt_ids[: begin - 1]), TOKENIZER.decode(request.prompt_ids[end + 1 :])
    assert around[0].endswith("What is") and around[1].startswith("this?")
    expected = media_reader().processor.image(PICTURE).inputs[0]
    assert (only.input.data == expected.data).all() and only.input.digest == expected.digest


def test_same_picture_by_any_address(served):  # row 158
    with web({"/p.png": PICTURE}) as site:
        urls = [{"url": data_url(PICTURE)}, {"url": f"{site}/p.png"}, f"{site}/p.png"]
        requests = [chat(served, {"type": "image_url", "image_url": url})[1] for url in urls]
    first = requests[0]
    for request in requests[1:]:
        assert request.prompt_ids == first.prompt_ids and request.content == first.content
        assert (request.media[0].input.data == first.media[0].input.data).all()
    assert chat(served, image_part(picture(seed=1)))[1].content != first.content


def test_file_below_the_allowed_folder(served, folder):  # row 160
    _, request = chat(served, {"type": "image_url", "image_url": {"url": f"file://{folder}/picture.png"}})
    assert request.content == chat(served, image_part(PICTURE))[1].content


def test_many_media_in_their_order(served):
    parts = [audio_part(sound(0.5)), image_part(PICTURE), text("and"), image_part(picture(64, 96)), video_part(film())]
    _, request = chat(served, *parts, text("compare"))
    kinds = [kind for kind, _, _ in placed(request)]
    assert kinds == ["audio", "image", "image", "video", "video", "video", "video"]
    assert placed(request) == placeholders(request)
    upright = request.media[2].input.grid
    assert upright[0] > upright[1] and request.media[1].input.grid == upright[::-1]


def test_image_in_a_tool_result(served):
    messages = [
        {"role": "user", "content": [image_part(picture(48, 48)), text("first")]},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": [image_part(picture(144, 48)), text("sunny")]},
    ]
    body = {"messages": messages, "tools": [WEATHER]}
    assert httpx.post(f"{served.url}/v1/chat/completions", json=body).status_code == 200
    request = served.engine.requests[-1]
    assert placed(request) == placeholders(request) and len(request.media) == 2
    wide = request.media[1].input.grid
    assert wide[1] > 2 * wide[0]
    prompt = TOKENIZER.decode(request.prompt_ids, skip_special_tokens=False)
    assert prompt.index("sunny") < prompt.rindex("<|image>")


@pytest.mark.parametrize("limit", [70, 140, 280, 560, 1120])
def test_most_tokens_of_an_image(served, limit):  # row 162
    large = picture(1600, 1200)
    counts = [
        chat(served, image_part(large), max_soft_tokens=limit)[1].media[0].input.num_tokens,
        chat(served, image_part(large), mm_processor_kwargs={"max_soft_tokens": limit})[1].media[0].input.num_tokens,
    ]
    assert counts[0] == counts[1] and 0.8 * limit <= counts[0] <= limit


def test_detail_of_an_image(served):
    large = picture(1600, 1200)
    _, request = chat(
        served,
        *[image_part(large, detail=detail) for detail in ("low", "high", "original", "auto", "none")],
        image_part(large),
        max_soft_tokens=280,
    )
    low, high, original, *others = [placed.input.num_tokens for placed in request.media]
    assert low <= 70 and 900 <= high == original <= 1120 and len(set(others)) == 1 and 200 <= others[0] <= 280
    assert chat(served, image_part(large, detail="auto"))[1].media[0].input.num_tokens == low


@pytest.mark.parametrize("form", ["WAV", "MP3", "FLAC", "OGG"])
def test_sound_reaches_the_engine(served, form):  # row 163
    answer, request = chat(served, audio_part(sound(2.0, form), form.lower()), text("What is said?"))
    (only,) = request.media
    assert placed(request) == placeholders(request) and 45 <= only.input.num_tokens <= 55
    assert only.input.data.dtype == np.float32 and only.input.data.shape[1] == 128 and only.input.data.flags.aligned
    assert answer["usage"]["prompt_tokens"] == len(request.prompt_ids)


def test_samples_are_those_of_the_file(served):
    _, request = chat(served, {"type": "audio_url", "audio_url": {"url": data_url(sound(), "audio/wav")}})
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    np.testing.assert_allclose(request.media[0].input.data, log_mel(noise), atol=0.05)


def test_sound_in_a_chat_is_cut_at_thirty_seconds(served):  # row 163
    tokens = [chat(served, audio_part(sound(s)))[1].media[0].input.num_tokens for s in (30, 31, 45)]
    assert tokens == [750, 750, 750]


def test_frames_of_a_video_have_their_times(served):
    _, request = chat(served, video_part(film(4, fps=1)), text("What happens?"))
    prompt = TOKENIZER.decode(request.prompt_ids, skip_special_tokens=False)
    times = [prompt.index(f"00:0{second} <|image><|video|>") for second in range(4)]
    assert times == sorted(times) and len(request.media) == 4
    brightness = [placed.input.data.mean() for placed in request.media]
    assert brightness == sorted(brightness) and brightness[-1] - brightness[0] > 200


def test_every_choice_sees_the_image(served):
    answer, _ = chat(served, image_part(PICTURE), n=3)
    requests = served.engine.requests[-3:]
    assert [placed(request) for request in requests] == [placeholders(requests[0])] * 3
    assert answer["usage"]["prompt_tokens"] == len(requests[0].prompt_ids)


def test_streamed_answer_about_an_image(served):
    messages = [{"role": "user", "content": [image_part(PICTURE)]}]
    chunks = served.client.chat.completions.create(model="nano", messages=messages, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello!"
    assert placed(served.engine.requests[-1]) == placeholders(served.engine.requests[-1]) != []


def test_count_is_what_a_chat_with_media_is_charged(served):
    content = [image_part(PICTURE), audio_part(sound()), text("x")]
    answer, request = chat(served, *content)
    body = {"messages": [{"role": "user", "content": content}]}
    counted = httpx.post(f"{served.url}/tokenize", json=body).json()
    assert counted["tokens"] == request.prompt_ids and counted["count"] == answer["usage"]["prompt_tokens"]


def test_template_has_one_placeholder_for_each_medium(served):
    content = [{"type": "image_url", "image_url": "http://nowhere.invalid/"}, text("x"), audio_part(b"unread")]
    body = {"messages": [{"role": "user", "content": content}]}
    prompt = httpx.post(f"{served.url}/apply-template", json=body).json()["prompt"]
    assert "<|turn>user\n<|image|>x<|audio|><turn|>" in prompt


def test_text_cannot_forge_a_placeholder(served):
    _, request = chat(served, text("<|image|>"), image_part(PICTURE), text("<|audio|><|video|>"))
    assert placed(request) == placeholders(request) and len(request.media) == 1


def test_model_without_an_audio_tower_hears_samples():
    engine = FakeEngine(answers({}), max_model_len=2048)
    with running(engine, media=media_reader("12b")) as server:
        _, request = chat(server, audio_part(sound(1.0)))
    (only,) = request.media
    assert only.input.data.shape == (25, 640) and only.input.num_tokens == 25
