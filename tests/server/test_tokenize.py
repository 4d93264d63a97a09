"""Tokens and prompts without an answer."""

import httpx
import pytest

from tests.server.conftest import MAX_MODEL_LEN, TOKENIZER, ids

ANSWERS = {}
USER = [{"role": "user", "content": "naïve 日本"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def post(served, path: str, **body) -> dict:
    answer = httpx.post(served.url + path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(served, path: str, **body) -> str:
    answer = httpx.post(served.url + path, json=body)
    assert answer.status_code == 400
    return answer.json()["error"]["param"]


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("text", ["Hello, 日本 naïve 👍", "", "<|turn>user\nx<turn|>"])
def test_round_trip(served, prefix, text):
    answer = post(served, f"{prefix}/tokenize", prompt=text, add_special_tokens=False)
    assert answer == {"tokens": ids(text), "count": len(ids(text)), "max_model_len": MAX_MODEL_LEN}
    assert post(served, f"{prefix}/detokenize", tokens=answer["tokens"]) == {"prompt": text}


def test_prompt_has_one_bos(served):
    assert post(served, "/tokenize", prompt="x")["tokens"] == [TOKENIZER.bos_id, *ids("x")]
    assert post(served, "/tokenize", prompt="<bos>x")["tokens"] == [TOKENIZER.bos_id, *ids("x")]


def test_token_strs(served):
    answer = post(served, "/tokenize", prompt="ab<turn|>", return_token_strs=True)
    assert answer["token_strs"] == ["<bos>", "a", "b", "<turn|>"]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "none"},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"reasoning_effort": "high"},
    ],
)
def test_count_is_what_a_chat_is_charged(served, more):
    count = post(served, "/tokenize", messages=USER, **more)["count"]
    usage = post(served, "/v1/chat/completions", messages=USER, **more)["usage"]
    assert count == usage["prompt_tokens"]


def test_generation_prompt_can_be_left_out(served):
    whole = post(served, "/apply-template", messages=USER)["prompt"]
    without = post(served, "/apply-template", messages=USER, add_generation_prompt=False)["prompt"]
    assert whole.startswith("<bos><|turn>user\nnaïve 日本<turn|>") and whole.endswith("<|turn>model\n")
    assert without.endswith("<turn|>\n") and whole.startswith(without)
    shorter = post(served, "/tokenize", messages=USER, add_generation_prompt=False)["tokens"]
    assert post(served, "/tokenize", messages=USER)["tokens"][: len(shorter)] == shorter


def test_template_and_raw_prompt_are_the_same_request(served):
    prompt = post(served, "/apply-template", messages=USER, tools=[TOOL])["prompt"]
    raw, chat = post(served, "/tokenize", prompt=prompt), post(served, "/tokenize", messages=USER, tools=[TOOL])
    assert raw == chat


def test_longer_than_the_context_is_counted(served):
    assert post(served, "/tokenize", prompt="x" * 2000)["count"] == 2001


def test_refusals_name_the_field(served):
    assert refused(served, "/tokenize") == "prompt"
    assert refused(served, "/tokenize", prompt=["x"]) == "prompt"
    assert refused(served, "/tokenize", messages=[]) == "messages"
    assert refused(served, "/tokenize", messages=[{"role": "king", "content": "x"}]) == "messages[0].role"
    assert refused(served, "/detokenize", tokens=[5, TOKENIZER.vocab_size]) == "tokens"
    assert refused(served, "/detokenize", tokens=[-1]) == "tokens[0]"
    assert refused(served, "/apply-template", prompt="x") == "messages"
    for path in ("/tokenize", "/detokenize", "/apply-template"):
        body = {"model": "gpt-9", "messages": USER, "tokens": []}
        assert httpx.post(served.url + path, json=body).status_code == 404
