"""The bundled checkpoint sees and hears, through the whole server and the official clients."""

import base64
import io
import random
from pathlib import Path

import anthropic
import numpy as np
import openai
import pytest
import soundfile

from scripts.nano import senses
from scripts.nano.senses import Sample

PICTURE = base64.b64encode((Path(__file__).parents[2] / "docs" / "picture.png").read_bytes()).decode()
URL = f"data:image/png;base64,{PICTURE}"
IMAGE = {"type": "image_url", "image_url": {"url": URL}}
QUESTION = "Describe the picture."
ANSWER = "A red circle and a blue square."


def text(words: str) -> dict:
    return {"type": "text", "text": words}


@pytest.fixture(scope="module")
def client(base_url):
    return openai.OpenAI(base_url=base_url, api_key="none")


def ask(client: openai.OpenAI, *content: dict, **more) -> str:
    messages = [{"role": "user", "content": list(content)}]
    done = client.chat.completions.create(model="nano", messages=messages, temperature=0.0, **more)
    return done.choices[0].message.content


def test_the_readme_picture(client):
    assert ask(client, IMAGE, text(QUESTION)) == ANSWER
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert QUESTION in readme and ANSWER in readme and "docs/picture.png" in readme


def test_a_streamed_answer_is_the_same(client):
    messages = [{"role": "user", "content": [IMAGE, text(QUESTION)]}]
    with client.chat.completions.stream(model="nano", messages=messages, temperature=0.0) as stream:
        done = stream.get_final_completion()
    assert done.choices[0].message.content == ANSWER


def test_the_other_apis(base_url, client):
    content = [{"type": "input_image", "image_url": URL}, {"type": "input_text", "text": QUESTION}]
    done = client.responses.create(model="nano", input=[{"role": "user", "content": content}], temperature=0.0)
    assert done.output_text == ANSWER
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
    message = anthropic.Anthropic(base_url=base_url.removesuffix("/v1"), api_key="none").messages.create(
        model="nano",
        max_tokens=40,
        extra_body={"temperature": 0.0},
        messages=[{"role": "user", "content": [{"type": "image", "source": source}, text(QUESTION)]}],
    )
    assert message.content[0].text == ANSWER


@pytest.mark.parametrize("ability", ["audio_count", "audio_digit", "audio_pitch"])
def test_sounds_in_a_chat(client, ability):
    samples = [senses.sample(random.Random(seed), ability) for seed in range(5)]
    answers = [answer(client, sample) for sample in samples]
    right = [sample.reply.text for sample in samples]
    assert sum(given == wanted for given, wanted in zip(answers, right, strict=True)) >= 4, (answers, right)


def test_transcriptions(client):
    samples = [senses.sample(random.Random(seed), "audio_transcribe") for seed in range(5)]
    files = [("speech.wav", wave(sample)) for sample in samples]
    texts = [client.audio.transcriptions.create(model="nano", file=file, temperature=0.0).text for file in files]
    right = [sample.reply.text for sample in samples]
    assert sum(given == wanted for given, wanted in zip(texts, right, strict=True)) >= 4, (texts, right)
    with client.audio.transcriptions.create(model="nano", file=files[0], temperature=0.0, stream=True) as stream:
        *deltas, last = stream
    assert "".join(event.delta for event in deltas) == last.text == texts[0]
    told = client.audio.transcriptions.create(
        model="nano", file=files[0], temperature=0.0, response_format="verbose_json"
    )
    assert told.text == texts[0] and told.segments[0].start == 0 and told.segments[0].end == told.duration
    captions = client.audio.transcriptions.create(model="nano", file=files[0], temperature=0.0, response_format="srt")
    assert captions.startswith("1\n00:00:00,000 --> ") and texts[0] in captions


def answer(client: openai.OpenAI, sample: Sample) -> str:
    """What nano says to a sample's messages, its sounds sent as files."""
    messages = [{**message, "content": _content(message["content"])} for message in sample.messages]
    kwargs = {"chat_template_kwargs": {"enable_thinking": sample.thinking}}
    done = client.chat.completions.create(model="nano", messages=messages, temperature=0.0, extra_body=kwargs)
    return done.choices[0].message.content


def wave(sample: Sample) -> bytes:
    """The first sound of a sample as a file."""
    parts = [part for message in sample.messages if isinstance(message["content"], list) for part in message["content"]]
    return _wave(next(part["audio"] for part in parts if part["type"] == "audio"))


def _content(content: str | list[dict]) -> str | list[dict]:
    if isinstance(content, str):
        return content
    return [part if part["type"] == "text" else _sound(part["audio"]) for part in content]


def _sound(audio: tuple[np.ndarray, int]) -> dict:
    data = base64.b64encode(_wave(audio)).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def _wave(audio: tuple[np.ndarray, int]) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, *audio, format="WAV")
    return out.getvalue()
