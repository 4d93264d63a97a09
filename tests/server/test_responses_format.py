"""Answers and calls of a demanded form, asked for in the words of /v1/responses.

The fake engine leaves out of its script whatever the guide does not allow.
"""

import json

import openai
import pydantic
import pytest

from tests.server.test_responses_api import WEATHER, ask

ANSWERS = {
    "person": 'Sure! Here it is:\n{"name": "Ada", "age": 36, "more": "is not asked for"}<turn|>',
    "call": 'No.<|tool_call>call:weather{city:<|"|>Rome<|"|>}<tool_call|><|tool_response>',
}


class Person(pydantic.BaseModel):
    name: str
    age: int


def test_json_object(served):
    answer = ask(served, "person", text={"format": {"type": "json_object"}})
    assert json.loads(answer.output_text) == {"name": "Ada", "age": 36, "more": "is not asked for"}
    assert answer.text.format.type == "json_object"


def test_json_schema(served):
    answer = served.client.responses.parse(model="nano", input="person", text_format=Person)
    assert answer.output_parsed == Person(name="Ada", age=36)
    assert (answer.text.format.type, answer.text.format.name) == ("json_schema", "Person")


def test_streamed_json_schema(served):
    with served.client.responses.stream(model="nano", input="person", text_format=Person) as events:
        assert events.get_final_response().output_parsed == Person(name="Ada", age=36)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "weather"}])
def test_forced_call(served, choice):
    (call,) = ask(served, "call", tools=[WEATHER], tool_choice=choice).output
    assert call.name == "weather" and json.loads(call.arguments)["city"] == "Rome"


def test_schema_that_is_none(served):
    wish = {"type": "json_schema", "name": "a", "schema": {"type": "nothing"}}
    with pytest.raises(openai.BadRequestError) as error:
        ask(served, "person", text={"format": wish})
    assert error.value.param == "text.format.schema"
