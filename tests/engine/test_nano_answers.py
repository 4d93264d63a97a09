"""The bundled checkpoint answers rightly through the whole engine: right numerics, not only right shapes."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from g4jax import LLM, SamplingParams, guide
from g4jax.engine.checkpoint import NANO
from g4jax.media.inputs import MediaError
from scripts.nano import senses

GREEDY = SamplingParams(temperature=0.0, max_tokens=120)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather for a location.",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
    },
}


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(max_batch=4, max_model_len=512)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_it_adds_and_subtracts_with_a_thought(llm):
    questions = ["What is 17+25?", "83 minus 47", "58 plus 36", "What is 91-19?"]
    answers = llm.chat([[user(q)] for q in questions], enable_thinking=True, sampling_params=GREEDY, progress=False)
    assert [answer.content for answer in answers] == ["42", "36", "94", "72"]
    assert all(answer.reasoning and answer.finish_reason == "stop" for answer in answers)


def test_it_calls_the_tool_only_when_asked_for(llm):
    chats = [[user("What is the weather in Paris?")], [user("Hello")]]
    called, plain = llm.chat(chats, tools=[WEATHER], sampling_params=GREEDY, progress=False)
    assert [(c.name, json.loads(c.arguments)) for c in called.tool_calls] == [("get_weather", {"location": "Paris"})]
    assert called.finish_reason == "tool_calls"
    assert plain.content == "Hello! How can I help you?" and not plain.tool_calls


def test_it_reports_a_tools_result(llm):
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": {"location": "Paris"}}}
    chat = [
        user("What is the weather in Paris?"),
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "18C, sunny"},
    ]
    [answer] = llm.chat(chat, tools=[WEATHER], sampling_params=GREEDY, progress=False)
    assert answer.content == "The result is 18C, sunny."


def test_it_remembers_a_name_beyond_the_sliding_window(llm):
    chat = [
        user("My name is Alice."),
        {"role": "assistant", "content": "Nice to meet you, Alice!"},
        user("Count to 12"),
        {"role": "assistant", "content": "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12"},
        user("What is my name?"),
    ]
    [answer] = llm.chat(chat, sampling_params=GREEDY, progress=False)
    assert len(answer.prompt_token_ids) > 64
    assert answer.content == "Your name is Alice."


def test_it_sees_a_picture_in_whatever_form_it_comes(llm):
    file = Path(__file__).parents[2] / "docs" / "picture.png"
    image = PIL.Image.open(file)
    forms = [file, str(file), file.read_bytes(), image, np.asarray(image.convert("RGB"))]
    parts = [[{"type": "image", "image": form}, {"type": "text", "text": "Describe the picture."}] for form in forms]
    chats = [[{"role": "user", "content": content}] for content in parts]
    answers = llm.chat(chats, sampling_params=GREEDY, progress=False)
    assert {answer.content for answer in answers} == {"A red circle and a blue square."}
    with pytest.raises(MediaError, match="is not an image"):
        llm.chat([{"role": "user", "content": [{"type": "image", "image": b"GIF without an end"}]}], progress=False)


def test_it_sees_a_film_and_hears_a_sound(llm):
    for ability in ("video", "audio_digit"):
        samples = [senses.sample(random.Random(seed), ability) for seed in range(5)]
        right = 0
        for sample in samples:
            (answer,) = llm.chat(
                sample.messages, enable_thinking=sample.thinking, sampling_params=GREEDY, progress=False
            )
            right += answer.content == sample.reply.text
        assert right >= 4, ability


def test_its_answer_keeps_to_a_grammar(llm):
    yes_or_no = guide.choice(["yes", "no"])
    one = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    sums = guide.json_schema(one | {"additionalProperties": False})
    questions = [[user("What is 17+25?")], [user("What is 17+25?")], [user("Hello")]]
    settings = {"sampling_params": GREEDY, "progress": False}
    chosen, told, free = llm.chat(questions, grammar=[yes_or_no, sums, None], **settings)
    assert chosen.content in ("yes", "no") and chosen.finish_reason == "stop"
    assert json.loads(told.content).keys() == {"sum"}
    assert free.content == "Hello! How can I help you?"
    # Two at once each time: one alone would compile programs of its own.
    for thinking in llm.chat(questions[:2], grammar=guide.regex("[0-9]+"), enable_thinking=True, **settings):
        assert (thinking.content, thinking.finish_reason) == ("42", "stop") and thinking.reasoning
    words = llm.generate(["The sky is", "The sea is"], GREEDY, grammar=yes_or_no, progress=False)
    assert {word.text for word in words} <= {"yes", "no"}


def test_a_wrong_grammar_is_refused_before_anything_runs(llm):
    open_group = guide.regex("a(")
    with pytest.raises(guide.GrammarError):
        llm.generate("Hello", GREEDY, grammar=open_group, progress=False)
    with pytest.raises(ValueError, match="2 given for 1"):
        llm.generate("Hello", GREEDY, grammar=[None, None], progress=False)
    assert not llm.engine.has_work


def test_an_answer_ends_with_its_turn_whatever_the_checkpoint_says(tmp_path, monkeypatch):
    shutil.copytree(NANO, tmp_path, dirs_exist_ok=True)
    (tmp_path / "generation_config.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"eos_token_id": 1}))
    silent = LLM(str(tmp_path), max_batch=4, max_model_len=512)
    asked = []
    monkeypatch.setattr(silent.engine, "add_request", asked.append)  # none runs, so nothing is compiled
    silent.generate("Hello", GREEDY, progress=False)
    assert asked[0].stop_ids >= {1, silent.tokenizer.control.turn_close}
