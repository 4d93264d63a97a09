"""Log probabilities of a completion's tokens and of an echoed prompt, with the official client."""

import openai
import pytest

from g4jax.testing.fake_engine import made_up_logprobs
from tests.server.conftest import TOKENIZER, ids

ANSWERS = {
    "Count": "one two three four<turn|>",
    "Greet": "日本語 ✓ naïve<turn|>",
    "Stop": "<turn|>",
}


def complete(served, prompt="Count", **more):
    return served.client.completions.create(**({"model": "nano", "prompt": prompt, "max_tokens": 50} | more))


def harness_score(choice, num_context: int) -> tuple[float, bool]:
    """How lm-evaluation-harness' `local-completions` reads a choice: log likelihood, and whether it is greedy."""
    told = choice.logprobs.token_logprobs[num_context:-1]
    top = choice.logprobs.top_logprobs[num_context:-1]
    return sum(told), all(logprob == max(entry.values()) for logprob, entry in zip(told, top, strict=True))


def test_absent(served):  # row 133
    assert complete(served).choices[0].logprobs is None


@pytest.mark.parametrize("num_top", [0, 1, 5, 20])  # rows 134, 135
def test_one_entry_for_each_token(served, num_top):
    answer = complete(served, logprobs=num_top)
    logprobs = answer.choices[0].logprobs
    prompt = len(TOKENIZER.encode_prompt("Count"))
    tokens = ids(ANSWERS["Count"])
    assert logprobs.tokens == [TOKENIZER.decode([i], skip_special_tokens=False) for i in tokens]
    assert len(tokens) == answer.usage.completion_tokens
    for position, (token, told, top) in enumerate(
        zip(tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True), prompt
    ):
        expected = made_up_logprobs(token, position, num_top, TOKENIZER.vocab_size)
        assert told == max(expected.logprob, -9999.0)
        assert num_top <= len(top) <= num_top + 1 or not num_top
        assert top[TOKENIZER.decode([token], skip_special_tokens=False)] == told


@pytest.mark.parametrize("prompt", ["Count", "Greet"])
@pytest.mark.parametrize("echo", [False, True])
def test_offsets_are_where_the_tokens_are_in_the_text(served, prompt, echo):
    choice = complete(served, prompt, logprobs=0, echo=echo).choices[0]
    logprobs = choice.logprobs
    assert logprobs.text_offset == sorted(logprobs.text_offset) and logprobs.text_offset[0] == 0
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        if "\\x" not in token and token not in ("<bos>", "<turn|>"):
            assert choice.text[offset:].startswith(token)
    assert logprobs.text_offset[-1] == len(choice.text)  # of the token that ends it


@pytest.mark.parametrize(
    ("prompt", "more"), [("Count", {}), ("Greet", {}), ("Count", {"stop": "o th"}), ("Count", {"echo": True})]
)
def test_stream_joined_is_the_whole(served, prompt, more):
    whole = complete(served, prompt, logprobs=2, n=2, **more)
    joined = {0: ([], [], [], []), 1: ([], [], [], [])}
    for chunk in complete(served, prompt, logprobs=2, n=2, stream=True, **more):
        for choice in chunk.choices:
            parts = choice.logprobs
            pieces = (parts.text_offset, parts.token_logprobs, parts.tokens, parts.top_logprobs)
            for collected, new in zip(joined[choice.index], pieces, strict=True):
                collected += new
    for choice in whole.choices:
        parts = choice.logprobs
        assert joined[choice.index] == (parts.text_offset, parts.token_logprobs, parts.tokens, parts.top_logprobs)
    assert sum(len(parts[2]) for parts in joined.values()) == whole.usage.completion_tokens + 2 * (
        whole.usage.prompt_tokens if more.get("echo") else 0
    )


def test_echo_tells_of_the_prompt(served):  # rows 132, 135
    answer = complete(served, echo=True, logprobs=1)
    choice = answer.choices[0]
    prompt = TOKENIZER.encode_prompt("Count")
    assert choice.text == "Countone two three four"
    assert choice.logprobs.tokens[: len(prompt)] == ["<bos>", *(TOKENIZER.decode([i]) for i in prompt[1:])]
    assert choice.logprobs.token_logprobs[0] is None and choice.logprobs.top_logprobs[0] is None
    assert None not in choice.logprobs.token_logprobs[1:]
    assert len(choice.logprobs.tokens) == answer.usage.total_tokens


def test_echo_alone(served):  # row 132
    answer = complete(served, echo=True, logprobs=1, max_tokens=0)
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason, answer.usage.completion_tokens) == ("Count", "length", 0)
    assert len(choice.logprobs.tokens) == answer.usage.prompt_tokens == answer.usage.total_tokens
    assert served.engine.requests[-1].params.max_tokens == 1
    chunks = list(complete(served, echo=True, max_tokens=0, stream=True))
    assert [(c.text, c.finish_reason) for chunk in chunks for c in chunk.choices] == [("Count", "length")]


def test_echo_of_a_text_is_that_text(served):
    """Control tokens that it spells are there; a BOS that it does not spell is not."""
    for text in ("<|turn>user\nCount<turn|>\n", "<bos>Count", "Größe 日本 Count"):
        choice = complete(served, text, echo=True, logprobs=0, max_tokens=0).choices[0]
        assert choice.text == text
        shown = zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True)
        assert all(text[offset:].startswith(token) for token, offset in shown if token != "<bos>" and "\\" not in token)


def test_echo_of_ids(served):
    prompt = TOKENIZER.encode_prompt("<|turn>user\nCount")
    choice = complete(served, prompt, echo=True, logprobs=0, max_tokens=0).choices[0]
    assert choice.text == "<|turn>user\nCount" and len(choice.logprobs.tokens) == len(prompt)


@pytest.mark.parametrize("as_ids", [False, True])
def test_as_the_evaluation_harness_asks(served, as_ids):
    texts = ["Count one", "Greet them", "Stop it"]
    prompts = [TOKENIZER.encode_prompt(text) for text in texts]
    answer = complete(
        served, prompts if as_ids else texts, temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for choice, prompt in zip(answer.choices, prompts, strict=True):
        assert len(choice.logprobs.tokens) == len(prompt) + 1, "also where it ends the text"
        told = [made_up_logprobs(token, at, 1, TOKENIZER.vocab_size).logprob for at, token in enumerate(prompt)]
        score, greedy = harness_score(choice, 3)
        assert score == sum(max(each, -9999.0) for each in told[3:])
        assert not greedy


def test_greedy_likelihood_of_the_likeliest_tokens(served):
    prompt = TOKENIZER.encode_prompt("ab")
    choice = complete(served, [prompt], max_tokens=1, logprobs=1, echo=True).choices[0]
    assert harness_score(choice, 1) == (-0.25 - 9999.0, False) and harness_score(choice, 3) == (0, True)


def test_prompt_logprobs(served):
    answer = complete(served, ["Count", "Greet it"], n=2, extra_body={"prompt_logprobs": 1})
    for choice, text in zip(answer.choices, ["Count", "Count", "Greet it", "Greet it"], strict=True):
        prompt = TOKENIZER.encode_prompt(text)
        assert [entry and str(token) in entry for entry, token in zip(choice.prompt_logprobs, prompt, strict=True)] == [
            None,
            *[True] * (len(prompt) - 1),
        ]
    assert not hasattr(complete(served).choices[0], "prompt_logprobs")


def test_prompt_logprobs_beside_those_of_an_echo(served):
    choice = complete(served, echo=True, logprobs=1, extra_body={"prompt_logprobs": 4}).choices[0]
    assert {len(entry) for entry in choice.prompt_logprobs[1:]} == {4, 5}
    assert {len(entry) for entry in choice.logprobs.top_logprobs[1:]} == {1, 2}


def test_tokens_by_their_ids(served):
    choice = complete(served, logprobs=1, extra_body={"return_tokens_as_token_ids": True}).choices[0]
    assert choice.logprobs.tokens == [f"token_id:{i}" for i in ids(ANSWERS["Count"])]


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("logprobs", {"logprobs": 21}),  # row 136
        ("logprobs", {"logprobs": -1}),
        ("logprobs", {"logprobs": True}),
        ("prompt_logprobs", {"prompt_logprobs": -1}),
        ("prompt_logprobs", {"prompt_logprobs": 1, "stream": True}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_tokens", {"max_tokens": -1, "echo": True}),
    ],
)
def test_refusals_name_the_field(served, param, body):
    with pytest.raises(openai.BadRequestError) as error:
        complete(served, extra_body=body)
    assert error.value.param == param and served.healthy()
