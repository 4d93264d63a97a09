"""Speech to text: /v1/audio/transcriptions and /v1/audio/translations."""

import httpx
import openai
import pytest
from openai.types.audio import TranscriptionTextDeltaEvent, TranscriptionTextDoneEvent, TranscriptionVerbose

from g4jax.engine.request import Request
from g4jax.testing.fake_engine import FakeEngine
from server.serving import MAX_BODY_BYTES
from tests.server.conftest import TOKENIZER, ids, media_reader, running
from tests.server.media_samples import picture, placed, placeholders, sound

ROUTE = "/v1/audio/transcriptions"
SHORT = sound(2.0)
LONG = sound(70.0, silent_from_s=25.0)
SAID = ["one two", "three", "four five."]


def script(request: Request) -> list[int]:
    """What is said in a piece of the speech; the later the piece, the shorter and so the sooner the answer."""
    return ids(f" {SAID[int(request.id.rpartition('-')[2])]} \n<turn|>")


@pytest.fixture(scope="module")
def served():
    with running(FakeEngine(script, max_model_len=2048, tokens_per_step=1)) as server:
        yield server


def transcribe(served, content: bytes = SHORT, route: str = ROUTE, **form):
    return httpx.post(served.url + route, files={"file": ("speech.wav", content)}, data=form, timeout=60)


def text_of(served, request: Request) -> str:
    return TOKENIZER.decode(request.prompt_ids, skip_special_tokens=False)


def test_short_speech(served):  # row 165
    answer = transcribe(served)
    request = served.engine.requests[-1]
    ((_, begin, end),) = placeholders(request)
    assert answer.json() == {
        "text": "one two",
        "usage": {
            "type": "tokens",
            "input_tokens": len(request.prompt_ids),
            "output_tokens": len(request.output_ids),
            "total_tokens": len(request.prompt_ids) + len(request.output_ids),
            "input_token_details": {
                "audio_tokens": end - begin,
                "text_tokens": len(request.prompt_ids) - (end - begin),
            },
        },
    }
    assert placed(request) == placeholders(request) and 45 <= end - begin <= 55
    assert (request.params.temperature, request.params.max_tokens) == (0.0, 128)


@pytest.mark.parametrize(
    ("route", "form", "task"),
    [
        (ROUTE, {}, "Transcribe the following speech segment in its original language into its original language."),
        (ROUTE, {"language": "de"}, "Transcribe the following speech segment in German into German text."),
        (ROUTE, {"language": "PT-br"}, "Transcribe the following speech segment in Portuguese into Portuguese text."),
        (ROUTE, {"language": "japanese"}, "Transcribe the following speech segment in Japanese into Japanese text."),
        (
            "/v1/audio/translations",
            {},
            "Transcribe the following speech segment in its original language, then translate it into English.",
        ),
        (
            "/v1/audio/translations",
            {"language": "fr"},
            "Transcribe the following speech segment in French, then translate it into English.",
        ),
    ],
)
def test_model_is_told_what_to_do(served, route, form, task):
    assert transcribe(served, route=route, **form).status_code == 200
    prompt = text_of(served, served.engine.requests[-1])
    what = "transcription" if route == ROUTE else "translation in English"
    assert f"<audio|>{task}\n\nFollow these specific instructions for formatting the answer:\n" in prompt
    assert f"*   Only output the {what}, with no newlines.\n" in prompt
    assert prompt.endswith("and write 3 instead of three.<turn|>\n<|turn>model\n")


def test_prompt_shows_how_names_are_written(served):
    transcribe(served, prompt="Ask Siobhán<turn|>.")
    prompt = text_of(served, served.engine.requests[-1])
    assert "three.\n*   Spell names and terms as in this text: Ask Siobhán<turn|>.<turn|>\n" in prompt
    assert served.engine.requests[-1].prompt_ids.count(TOKENIZER.control.turn_close) == 1


def test_long_speech_is_cut_where_it_is_quiet(served):
    before = len(served.engine.requests)
    assert transcribe(served, LONG).json()["text"] == "one two three four five."
    requests = served.engine.requests[before:]
    assert len(requests) == 3 and all(placed(each) == placeholders(each) for each in requests)
    seconds = [each.media[0].input.num_tokens / 25 for each in requests]
    assert sum(seconds) == pytest.approx(70, abs=0.2) and max(seconds) <= 30
    assert seconds[0] == pytest.approx(25.25, abs=0.3)


def test_text(served):
    answer = transcribe(served, LONG, response_format="text")
    assert answer.text == "one two three four five.\n" and answer.headers["content-type"].startswith("text/plain")


def test_verbose_json(served):
    answer = transcribe(
        served, LONG, response_format="verbose_json", language="en", **{"timestamp_granularities[]": "segment"}
    )
    told = TranscriptionVerbose.model_validate(answer.json(), strict=True)
    assert (told.text, told.language, told.duration) == ("one two three four five.", "english", 70.0)
    assert told.usage is not None and told.usage.seconds == 70.0 and answer.json()["task"] == "transcribe"
    assert told.segments is not None and [each.text for each in told.segments] == SAID
    assert [each.id for each in told.segments] == [0, 1, 2]
    ends = [0.0, *[each.end for each in told.segments]]
    assert [each.start for each in told.segments] == ends[:-1] and ends[-1] == 70.0
    assert all(TOKENIZER.decode(each.tokens) == each.text for each in told.segments)
    assert all(each.avg_logprob < 0 and each.compression_ratio > 0 for each in told.segments)


def test_srt(served):
    answer = transcribe(served, response_format="srt")
    assert answer.text == "1\n00:00:00,000 --> 00:00:02,000\none two\n"
    blocks = transcribe(served, LONG, response_format="srt").text.split("\n\n")
    assert [block.split("\n")[0] for block in blocks] == ["1", "2", "3"] and blocks[2].endswith(
        "01:10,000\nfour five.\n"
    )


def test_vtt(served):
    answer = transcribe(served, response_format="vtt")
    assert answer.text == "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\none two\n"
    assert answer.headers["content-type"].startswith("text/vtt")


@pytest.mark.parametrize("content", [SHORT, LONG])
def test_stream_joined_is_the_whole(served, content):
    stream = served.client.audio.transcriptions.create(file=("a.wav", content), model="nano", stream=True)
    *deltas, done = list(stream)
    assert all(isinstance(each, TranscriptionTextDeltaEvent) for each in deltas) and len(deltas) > 2
    assert isinstance(done, TranscriptionTextDoneEvent) and done.usage is not None
    whole = transcribe(served, content).json()
    assert "".join(each.delta for each in deltas) == done.text == whole["text"]
    assert done.usage.model_dump() == whole["usage"]


def test_bytes_of_a_stream(served):
    answer = transcribe(served, stream="true")
    *events, rest = answer.text.split("\n\n")
    assert rest == "" and answer.headers["content-type"].startswith("text/event-stream")
    names = [event.split("\n")[0] for event in events]
    assert set(names[:-1]) == {"event: transcript.text.delta"} and names[-1] == "event: transcript.text.done"


def test_official_client(served):
    audio = served.client.audio
    assert audio.transcriptions.create(file=("a.mp3", sound(2.0, "MP3")), model="nano").text == "one two"
    assert audio.translations.create(file=("a.ogg", sound(2.0, "OGG")), model="nano").text == "one two"
    subtitles = audio.transcriptions.create(file=("a.wav", SHORT), model="nano", response_format="srt")
    assert "one two" in str(subtitles)
    with pytest.raises(openai.NotFoundError):
        audio.transcriptions.create(file=("a.wav", SHORT), model="whisper-1")


def test_thought_is_no_transcript():
    thinking = FakeEngine(lambda _: ids("<|channel>thought\nI hear.\n<channel|>one two<turn|>"), max_model_len=1024)
    with running(thinking, parse_reasoning=False) as server:
        assert transcribe(server).json()["text"] == "one two"


def test_model_that_repeats_itself_is_stopped():
    with running(FakeEngine(lambda _: ids("la "), max_model_len=4096, tokens_per_step=16)) as server:
        assert transcribe(server).status_code == 200
        assert len(server.engine.requests[-1].output_ids) == 128


def test_speech_of_a_script_without_blanks():
    said = ["日本", "日本。", "日本"]
    engine = FakeEngine(lambda r: ids(f"{said[int(r.id.rpartition('-')[2])]}<turn|>"), max_model_len=2048)
    with running(engine) as server:
        assert transcribe(server, LONG, language="ja").json()["text"] == "日本日本。日本"


@pytest.mark.parametrize(
    ("param", "form"),
    [
        ("response_format", {"response_format": "xml"}),
        ("temperature", {"temperature": "3"}),
        ("temperature", {"temperature": "warm"}),
        ("language", {"language": "klingon"}),
        ("stream", {"stream": "true", "response_format": "srt"}),
        ("stream", {"stream": "perhaps"}),
        ("timestamp_granularities", {"timestamp_granularities[]": "word", "response_format": "verbose_json"}),
        ("timestamp_granularities", {"timestamp_granularities[]": "segment"}),
        ("timestamp_granularities[0]", {"timestamp_granularities[]": "page"}),
    ],
)
def test_refusals_name_the_field(served, param, form):
    answer = transcribe(served, **form)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param and served.healthy()


@pytest.mark.parametrize("content", [b"", b"RIFF", picture(), SHORT[:30], b"ID3" + bytes(1000)])
def test_file_that_is_no_sound(served, content):
    answer = transcribe(served, content)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file") and served.healthy()


def test_form_that_is_none(served):
    missing = httpx.post(served.url + ROUTE, files={"other": b"x"})
    assert (missing.status_code, missing.json()["error"]["param"]) == (400, "file")
    text = httpx.post(served.url + ROUTE, data={"file": "a text"}, files={"other": b"x"})
    assert (text.status_code, text.json()["error"]["param"]) == (400, "file")
    two = httpx.post(served.url + ROUTE, files=[("file", SHORT), ("more", SHORT)])
    assert two.status_code == 400 and "Too many files" in two.json()["error"]["message"]
    for body in ({"content": b"{}", "headers": {"content-type": "application/json"}}, {"content": b""}):
        assert "multipart/form-data" in httpx.post(served.url + ROUTE, **body).json()["error"]["message"]
    headers = {"content-type": "multipart/form-data"}
    assert "boundary" in httpx.post(served.url + ROUTE, content=b"x", headers=headers).json()["error"]["message"]
    assert served.healthy()


def test_file_that_is_too_large(served):
    answer = transcribe(served, b"RIFF" + bytes(MAX_BODY_BYTES))
    assert answer.status_code == 413 and served.healthy()


def test_model_that_does_not_hear():  # row 164
    with running(FakeEngine(script), media=media_reader("31b")) as server:
        answer = transcribe(server)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_parameter")
    assert "this model takes no audio" in answer.json()["error"]["message"]
