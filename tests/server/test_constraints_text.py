"""Answers of a demanded form: response_format and the fields that SGLang's and vLLM's users send.

The fake engine leaves out of its script whatever the guide does not allow.
"""

import json

import httpx
import openai
import pydantic
import pytest

from tests.server.chats import WEATHER, ask, joined, user, whole
from tests.server.conftest import TOKENIZER

ANSWERS = {
    "person": 'Sure! Here it is:\n{"name": "Ada", "age": 36, "more": "is not asked for"}<turn|>',
    "think": '<|channel>thought\n{"no": "JSON" here<channel|>Well: {"name": "Bob", "age": 7}<turn|>',
    "verdict": "I would say: maybe, perhaps no.<turn|>",
    "number": "Is it 42? Or 43?<turn|>",
    "call": '<|tool_call>call:weather{city:<|"|>Rome<|"|>}<tool_call|><|tool_response>',
}


class Person(pydantic.BaseModel):
    name: str
    age: int


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
PERSON_FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
THINK = {"chat_template_kwargs": {"enable_thinking": True}}
DIGITS = 'root ::= "1" [0-9] | [4-9] [0-9]'


def _content(served, text: str, **more) -> str:
    return ask(served, text, **more).choices[0].message.content


def test_text_is_free(served):  # row 84
    assert _content(served, "verdict", response_format={"type": "text"}) == "I would say: maybe, perhaps no."
    assert served.engine.requests[-1].guide is None


def test_json_object(served):  # row 85
    content = _content(served, "person", response_format={"type": "json_object"})
    assert json.loads(content) == {"name": "Ada", "age": 36, "more": "is not asked for"}


@pytest.mark.parametrize("stream", [False, True])
def test_json_schema(served, stream):  # rows 86, 90
    answer = ask(served, "person", response_format=PERSON_FORMAT, stream=stream)
    (choice,) = (joined if stream else whole)(answer).values()
    assert json.loads(choice["content"]) == {"name": "Ada", "age": 36} and choice["finish"] == ["stop"]


@pytest.mark.parametrize("stream", [False, True])
def test_json_schema_after_a_thought(served, stream):  # row 91
    answer = ask(served, "think", response_format=PERSON_FORMAT, stream=stream, extra_body=THINK)
    (choice,) = (joined if stream else whole)(answer).values()
    assert choice["reasoning"] == '{"no": "JSON" here'
    assert json.loads(choice["content"]) == {"name": "Bob", "age": 7}


def test_no_thought_where_it_is_not_asked_for(served):
    choice = whole(ask(served, "think", response_format=PERSON_FORMAT))[0]
    assert choice["reasoning"] == "" and json.loads(choice["content"]).keys() == {"name", "age"}


def test_parse_helper(served):  # row 95
    answer = served.client.chat.completions.parse(model="nano", messages=user("person"), response_format=Person)
    assert answer.choices[0].message.parsed == Person(name="Ada", age=36)


def test_length_cuts_the_json(served):  # row 96
    assert ask(served, "person", response_format=PERSON_FORMAT, max_tokens=5).choices[0].finish_reason == "length"
    with pytest.raises(openai.LengthFinishReasonError):
        served.client.chat.completions.parse(
            model="nano", messages=user("person"), response_format=Person, max_tokens=5
        )


@pytest.mark.parametrize(
    ("text", "body", "expected"),
    [
        ("number", {"regex": "[0-9]+"}, "4243"),  # row 92
        ("number", {"guided_regex": "4[0-9]"}, "42"),
        ("number", {"structured_outputs": {"regex": "4[0-9]"}}, "42"),
        ("verdict", {"choice": ["yes", "no"]}, "yes"),  # row 93
        ("verdict", {"guided_choice": ["yes", "no"]}, "yes"),
        ("verdict", {"structured_outputs": {"choice": ["maybe", "no"]}}, "maybe"),
        ("number", {"ebnf": DIGITS}, "42"),
        ("number", {"grammar": 'start: "4" /[0-9]/'}, "42"),
        ("number", {"guided_grammar": DIGITS}, "42"),
        ("number", {"structured_outputs": {"grammar": DIGITS}}, "42"),
        ("person", {"json_schema": json.dumps(SCHEMA)}, '{"name": "Ada", "age": 36}'),
        ("person", {"guided_json": SCHEMA}, '{"name": "Ada", "age": 36}'),
        ("person", {"structured_outputs": {"json": SCHEMA}}, '{"name": "Ada", "age": 36}'),
        ("person", {"structured_outputs": {"json_object": True}, "stop": ", "}, '{"name": "Ada"'),
    ],
)
def test_extensions(served, text, body, expected):
    assert _content(served, text, extra_body=body) == expected
    prompt = TOKENIZER.encode_prompt(f"<|turn>user\n{text}<turn|>\n<|turn>model\n")
    answer = served.client.completions.create(model="nano", prompt=prompt, max_tokens=60, extra_body=body)
    assert answer.choices[0].text == expected


def test_completion_with_a_response_format(served):
    answer = served.client.completions.create(
        model="nano", prompt=["person", "person!"], max_tokens=60, extra_body={"response_format": PERSON_FORMAT}
    )
    assert [json.loads(choice.text) for choice in answer.choices] == [{"name": "Ada", "age": 36}] * 2


def test_call_in_place_of_the_text(served):
    """Where the model may choose: a call by the schema of its tool, or text by the schema of the answer."""
    answer = ask(served, "call", response_format=PERSON_FORMAT, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "tool_calls"
    assert json.loads(answer.choices[0].message.tool_calls[0].function.arguments) == {"city": "Rome"}
    choice = whole(ask(served, "person", response_format=PERSON_FORMAT, tools=[WEATHER]))[0]
    assert json.loads(choice["content"]) == {"name": "Ada", "age": 36} and choice["calls"] == []
    more = {"response_format": PERSON_FORMAT, "tools": [WEATHER], "tool_choice": "none", "max_tokens": 20}
    choice = whole(ask(served, "call", **more))[0]
    assert choice["content"].startswith('{"name": "') and choice["calls"] == []


REFUSED = [
    ("response_format.json_schema", {"response_format": {"type": "json_schema"}}),  # row 87
    ("response_format.json_schema.schema", {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
    ("response_format.json_schema.name", {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}),
    ("response_format.type", {"response_format": {"type": "structural_tag"}}),  # row 88
    ("response_format.type", {"response_format": {}}),
    ("response_format", {"response_format": "json_object"}),
    # row 89
    (
        "response_format.json_schema.schema",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "thing"}}}},
    ),
    ("guided_json", {"guided_json": {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}}),
    ("regex", {"regex": "("}),
    ("regex", {"regex": "(?=a)b"}),
    ("ebnf", {"ebnf": "a poem"}),
    ("ebnf", {"ebnf": 'root ::= "a" missing'}),
    ("json_schema", {"json_schema": "{"}),
    ("json_schema", {"json_schema": "[1]"}),
    # row 94
    ("regex", {"regex": 5}),
    ("ebnf", {"ebnf": ["a"]}),
    ("choice", {"choice": "yes"}),
    ("choice", {"choice": []}),
    ("choice[1]", {"choice": ["yes", 5]}),
    ("guided_json", {"guided_json": 5}),
    ("structured_outputs", {"structured_outputs": "json"}),
    ("structured_outputs.regex", {"structured_outputs": {"regex": {}}}),
    ("structured_outputs.json", {"structured_outputs": {"json": 5}}),
    # two of them
    ("regex", {"regex": "a", "response_format": {"type": "json_object"}}),
    ("choice", {"regex": "a", "choice": ["a"]}),
    ("structured_outputs.choice", {"structured_outputs": {"regex": "a", "choice": ["a"]}}),
    ("regex", {"regex": "a", "tools": [WEATHER], "tool_choice": "required"}),
]


@pytest.mark.parametrize(("param", "body"), REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_refusals_name_the_field(served, param, body, stream):
    answer = httpx.post(
        f"{served.url}/v1/chat/completions", json={"messages": user("person"), "stream": stream} | body, timeout=30
    )
    assert answer.status_code == 400 and answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert error["param"] == param and error["message"].startswith(f"{param}: ")
    assert len(error["message"]) < 500 and served.healthy()
