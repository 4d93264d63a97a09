"""What the bundled model must write fits, where it would rather write nonsense; by `scripts/check_constraints.py`."""

import asyncio

import jsonschema
import pytest
from openai.types.chat.chat_completion import Choice

from scripts.check_constraints import KINDS, check, outcomes, request

CITY = {"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": CITY}} for name in ("weather", "time")]
REQUIRED = {"tools": TOOLS, "tool_choice": "required"}
NAMED = REQUIRED | {"tool_choice": {"type": "function", "function": {"name": "weather"}}}
FORM = {"response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": CITY}}}
ROME = '{"city": "Rome"}'


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_drawn_fits(base_url, kind):
    bodies = [request(kind, seed, temperature=1.5, max_tokens=150) for seed in range(11)]
    found = asyncio.run(outcomes(base_url, bodies, concurrency=11))
    assert not found["invalid"] and not found["error"] and found["valid"] >= 9, found


@pytest.mark.parametrize(
    ("body", "calls", "content"),
    [
        (REQUIRED, [("weather", ROME), ("time", ROME)], None),
        (NAMED, [("weather", ROME)], None),
        (FORM, [], ROME),
    ],
)
def test_the_check_takes(body, calls, content):
    check(body, _choice(calls, content, "tool_calls" if calls else "stop"))


@pytest.mark.parametrize(
    ("body", "calls", "content", "finish_reason"),
    [
        (REQUIRED, [("weather", ROME), ("time", "{}")], None, "tool_calls"),
        (REQUIRED, [("weather", ROME[:-1])], None, "tool_calls"),
        (REQUIRED, [("place", ROME)], None, "tool_calls"),
        (REQUIRED, [("weather", ROME)], None, "stop"),
        (REQUIRED, [("weather", ROME)], "Well.", "tool_calls"),
        (REQUIRED, [], "Well.", "tool_calls"),
        (NAMED, [("time", ROME)], None, "tool_calls"),
        (NAMED, [("weather", ROME)] * 2, None, "tool_calls"),
        (FORM, [], '{"city": "Oslo"}', "stop"),
        (FORM, [], f"Here: {ROME}", "stop"),
        (FORM, [("weather", ROME)], ROME, "stop"),
        (FORM, [], ROME, "tool_calls"),
    ],
)
def test_the_check_refuses(body, calls, content, finish_reason):
    with pytest.raises((ValueError, jsonschema.ValidationError)):
        check(body, _choice(calls, content, finish_reason))


def _choice(calls, content, finish_reason) -> Choice:
    made = [
        {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": content, "tool_calls": made}
    return Choice.model_validate({"index": 0, "finish_reason": finish_reason, "message": message})
