"""What only a model that runs can show of the API: sampling, log probabilities and constraints with the bundled one."""

import collections
import json

import openai
import pytest

QUESTION = [{"role": "user", "content": "What is 17+25?"}]
OPEN = [{"role": "user", "content": "Tell me"}]
SCHEMA = {
    "type": "object",
    "properties": {"result": {"type": "integer", "minimum": 0, "maximum": 99}, "sure": {"type": "boolean"}},
    "required": ["result", "sure"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
THINK = {"chat_template_kwargs": {"enable_thinking": True}}


@pytest.fixture(scope="module")
def client(base_url):
    return openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)


def _ask(client, messages=QUESTION, **more):
    return client.chat.completions.create(**({"model": "nano", "messages": messages, "temperature": 0} | more))


def _texts(answer) -> list[str]:
    return [choice.message.content for choice in answer.choices]


def test_greedy_answers_repeat(client):  # rows 11, 15
    texts = _texts(_ask(client, n=2)) + _texts(_ask(client))
    assert texts == ["42"] * 3


def test_seed_repeats_and_choices_differ(client):  # rows 12, 13
    asked = {"messages": OPEN, "temperature": 2, "top_p": 1, "max_tokens": 20, "seed": 5, "extra_body": {"top_k": 0}}
    texts = _texts(_ask(client, n=3, **asked))
    assert _texts(_ask(client, n=3, **asked)) == texts and len(set(texts)) == 3
    assert _texts(_ask(client, **asked)) == texts[:1]


def test_bias_dominates(client):  # row 97
    answer = _ask(client, logit_bias={"2000": 100}, max_tokens=4, logprobs=True)
    assert len({entry.token for entry in answer.choices[0].logprobs.content}) == 1
    assert answer.choices[0].finish_reason == "length"


def test_frequency_penalty_repeats_less(client):  # row 104
    asked = {"model": "nano", "prompt": "a a a a", "max_tokens": 40, "temperature": 0, "logprobs": 0}
    body = {"ignore_eos": True}

    def most_common(penalty: float) -> int:
        answer = client.completions.create(**asked, frequency_penalty=penalty, extra_body=body)
        return collections.Counter(answer.choices[0].logprobs.tokens).most_common(1)[0][1]

    assert most_common(2) < most_common(-2)


def test_log_probabilities_are_those_of_the_same_text_as_a_prompt(client):  # row 132
    prompt = "<|turn>user\nWhat is 17+25?<turn|>\n<|turn>model\n"
    asked = {"model": "nano", "temperature": 0, "logprobs": 3}
    drawn = client.completions.create(prompt=prompt, max_tokens=20, **asked).choices[0]
    echoed = client.completions.create(prompt=f"{prompt}{drawn.text}<turn|>", max_tokens=0, echo=True, **asked)
    told = echoed.choices[0].logprobs
    count = len(drawn.logprobs.tokens)
    assert told.tokens[-count:] == drawn.logprobs.tokens == ["4", "2", "<turn|>"]
    assert told.token_logprobs[-count:] == pytest.approx(drawn.logprobs.token_logprobs, abs=1e-4)
    for logprob, top in zip(told.token_logprobs[-count:], told.top_logprobs[-count:], strict=True):
        assert logprob == max(top.values()), "exactly, for the evaluation harness compares the two"


@pytest.mark.parametrize("think", [False, True])
def test_json_schema_at_any_temperature(client, think):  # rows 86, 91
    form = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}
    answer = _ask(
        client, temperature=1, seed=1, n=8, response_format=form, max_tokens=150, extra_body=THINK if think else {}
    )
    for choice in answer.choices:
        value = json.loads(choice.message.content)
        assert value.keys() == {"result", "sure"} and 0 <= value["result"] <= 99
        assert bool(choice.message.reasoning_content) is think


@pytest.mark.parametrize("think", [False, True])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_forced_call(client, choice, think):  # rows 65, 67, 80
    body = THINK if think else {}
    answer = _ask(client, tools=[WEATHER], tool_choice=choice, max_tokens=200, extra_body=body).choices[0]
    (call,) = answer.message.tool_calls
    assert (answer.finish_reason, answer.message.content, call.function.name) == ("tool_calls", None, "get_weather")
    assert json.loads(call.function.arguments).keys() == {"city"}
    assert bool(answer.message.reasoning_content) is think


def test_thought_within_its_budget(client):
    answer = _ask(client, extra_body=THINK | {"thinking_token_budget": 4})
    assert answer.usage.completion_tokens_details.reasoning_tokens == 4
    assert answer.choices[0].finish_reason == "stop" and answer.choices[0].message.content


def test_last_message_goes_on(client):  # row 21
    messages = [*QUESTION, {"role": "assistant", "content": "4"}]
    assert _texts(_ask(client, messages, extra_body={"continue_final_message": True})) == ["2"]
