"""POST /v1/completions with the official client."""

import openai
import pytest

from tests.server.conftest import TOKENIZER

ANSWERS = {
    "Count": "one two three four<turn|>",
    "Greet": "日本語 ✓ naïve<turn|>",
    "Endless": "abc",
}


def _joined(chunks) -> dict[int, str]:
    texts: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    return texts


def test_text_prompt(served):
    answer = served.client.completions.create(model="nano", prompt="Count", max_tokens=50)
    assert (answer.object, answer.id[:5], answer.model) == ("text_completion", "cmpl-", "nano")
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("one two three four", "stop")
    prompt_ids = TOKENIZER.encode_prompt("Count")
    assert prompt_ids[0] == TOKENIZER.bos_id
    assert served.engine.requests[-1].prompt_ids == prompt_ids
    assert answer.usage.prompt_tokens == len(prompt_ids)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_token_id_prompt_is_taken_as_it_is(served):
    ids = TOKENIZER.encode_text("Count")
    answer = served.client.completions.create(model="nano", prompt=ids, max_tokens=5)
    assert served.engine.requests[-1].prompt_ids == ids
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(ids), 5)
    assert answer.choices[0].finish_reason == "length"


def test_sixteen_tokens_by_default(served):
    assert served.client.completions.create(model="nano", prompt="Endless").usage.completion_tokens == 16


def test_list_of_prompts_times_n(served):
    answer = served.client.completions.create(model="nano", prompt=["Count", "Greet"], n=2, max_tokens=60)
    texts = [choice.text for choice in answer.choices]
    assert texts == ["one two three four"] * 2 + ["日本語 ✓ naïve"] * 2
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    expected = len(TOKENIZER.encode_prompt("Count")) + len(TOKENIZER.encode_prompt("Greet"))
    assert answer.usage.prompt_tokens == expected


def test_echo(served):
    answer = served.client.completions.create(model="nano", prompt="Count", echo=True, max_tokens=50)
    assert answer.choices[0].text == "Countone two three four"


@pytest.mark.parametrize("prompt", ["Count", "Greet"])
def test_stream_joined_is_the_whole(served, prompt):
    asked = {"model": "nano", "prompt": prompt, "n": 2, "max_tokens": 60}
    whole = served.client.completions.create(**asked)
    chunks = list(served.client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert _joined(chunks) == {choice.index: choice.text for choice in whole.choices}
    assert sorted(c.index for chunk in chunks for c in chunk.choices if c.finish_reason) == [0, 1]
    assert not any("\ufffd" in choice.text for chunk in chunks for choice in chunk.choices)
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.parametrize("stop", ["o thr", [" three", "zebra"]])
def test_stop_text_is_cut_and_counted_exactly(served, stop):
    asked = {"model": "nano", "prompt": "Count", "max_tokens": 50, "stop": stop}
    answer = served.client.completions.create(**asked)
    first = stop if isinstance(stop, str) else stop[0]
    before = "one two three four".partition(first)[0]
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (before, "stop")
    assert answer.choices[0].matched_stop == first
    assert answer.usage.completion_tokens == len(TOKENIZER.encode_text(before + first))
    assert _joined(served.client.completions.create(**asked, stream=True)) == {0: before}


def test_stop_token_id_is_not_shown(served):
    (letter,) = TOKENIZER.encode_text("w")
    answer = served.client.completions.create(
        model="nano", prompt="Count", max_tokens=50, extra_body={"stop_token_ids": [letter]}
    )
    assert (answer.choices[0].text, answer.choices[0].matched_stop) == ("one t", letter)


def test_ignore_eos(served):
    answer = served.client.completions.create(
        model="nano", prompt="Count", max_tokens=40, extra_body={"ignore_eos": True}
    )
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (40, "length")
    assert answer.choices[0].text == "one two three four"


def test_cached_tokens(served):
    for _ in range(2):
        answer = served.client.completions.create(model="nano", prompt="Count to nine", max_tokens=2)
    assert answer.usage.prompt_tokens_details.cached_tokens == answer.usage.prompt_tokens - 1


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("prompt", ""),
        ("prompt", []),
        ("prompt", [[]]),
        ("prompt", [5, 10**6]),
        ("prompt", ["x", 5]),
        ("prompt", None),
        ("suffix", "after"),
        ("best_of", 1),
        ("stream_options", {"include_usage": True}),  # row 138
        ("n", 0),
    ],
)
def test_refusals_name_the_field(served, param, value):
    body = {"model": "nano", "prompt": "Count", "n": 2, "max_tokens": 5} | {param: value}
    with pytest.raises(openai.BadRequestError) as error:
        served.client.completions.create(**body)
    assert error.value.param.startswith(param) and error.value.type == "invalid_request_error"
    assert served.healthy()
