"""Answers, calls and thoughts of a demanded form, asked for in the words of /v1/messages.

The fake engine leaves out of its script whatever the guide does not allow.
"""

import json

import anthropic
import pytest

from tests.server.conftest import ids
from tests.server.test_anthropic_api import WEATHER, ask

ANSWERS = {
    "person": 'Sure! Here it is:\n{"name": "Ada", "age": 36, "more": "is not asked for"}<turn|>',
    "call": 'No.<|tool_call>call:weather{city:<|"|>Rome<|"|>}<tool_call|><|tool_response>',
    "think": "<|channel>thought\nTwo and two and two and two.<channel|>It is four.<turn|>",
}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def _format(schema: dict) -> dict:
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}


def test_json_schema(served):
    (text,) = ask(served, "person", **_format(SCHEMA)).content
    assert json.loads(text.text) == {"name": "Ada", "age": 36}


def test_schema_that_is_none(served):
    with pytest.raises(anthropic.BadRequestError, match="output_config.format.schema: "):
        ask(served, "person", **_format({"type": "nothing"}))


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}])
def test_forced_call(served, choice):
    answer = ask(served, "call", tools=[WEATHER], tool_choice=choice)
    (call,) = answer.content
    assert (call.type, call.name, call.input["city"]) == ("tool_use", "weather", "Rome")
    assert answer.stop_reason == "tool_use"


def test_budget_of_a_thought(served):
    budget = len(ids("thought\nTwo and"))
    thought, _ = ask(served, "think", thinking={"type": "enabled", "budget_tokens": budget}).content
    assert "Two and two and two and two.".startswith(thought.thinking) and len(thought.thinking) < 12
