"""What the bundled model must write fits, also where it would rather write nonsense; by `scripts/check_constraints.py`."""

import asyncio
import json

import pytest
from openai.types.chat.chat_completion import Choice

from scripts.check_constraints import KINDS, fault, outcomes, request
from tests.server.test_nano_server import base_url  # noqa: F401

REQUESTS = 12
CITY = {"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": CITY}} for name in ("weather", "time")]
NAMED = {"type": "function", "function": {"name": "weather"}}
FORM = {"type": "json_schema", "json_schema": {"name": "place", "schema": CITY}}
ROME = '{"city": "Rome"}'


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_drawn_fits(base_url, kind):  # noqa: F811
    bodies = [request(kind, seed, temperature=1.5, max_tokens=150) for seed in range(REQUESTS)]
    found = asyncio.run(outcomes(base_url, bodies, concurrency=REQUESTS))
    assert found["valid"] + found["cut"] == REQUESTS and found["valid"] >= REQUESTS - 2, found


@pytest.mark.parametrize(
    ("body", "calls", "content", "finish_reason", "is_right"),
    [
        ({"tools": TOOLS, "tool_choice": "required"}, [("weather", ROME), ("time", ROME)], None, "tool_calls", True),
        ({"tools": TOOLS, "tool_choice": "required"}, [("weather", ROME), ("time", "{}")], None, "tool_calls", False),
        ({"tools": TOOLS, "tool_choice": "required"}, [("weather", ROME[:-1])], None, "tool_calls", False),
        ({"tools": TOOLS, "tool_choice": "required"}, [("place", ROME)], None, "tool_calls", False),
        ({"tools": TOOLS, "tool_choice": "required"}, [("weather", ROME)], None, "stop", False),
        ({"tools": TOOLS, "tool_choice": "required"}, [("weather", ROME)], "Well.", "tool_calls", False),
        ({"tools": TOOLS, "tool_choice": "required"}, [], None, "tool_calls", False),
        ({"tools": TOOLS, "tool_choice": NAMED}, [("weather", ROME)], None, "tool_calls", True),
        ({"tools": TOOLS, "tool_choice": NAMED}, [("time", ROME)], None, "tool_calls", False),
        ({"tools": TOOLS, "tool_choice": NAMED}, [("weather", ROME)] * 2, None, "tool_calls", False),
        ({"response_format": FORM}, [], ROME, "stop", True),
        ({"response_format": FORM}, [], '{"city": "Oslo"}', "stop", False),
        ({"response_format": FORM}, [], f"Here: {ROME}", "stop", False),
        ({"response_format": FORM}, [("weather", ROME)], ROME, "tool_calls", False),
    ],
)
def test_what_the_check_takes(body, calls, content, finish_reason, is_right):
    made = [
        {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": content, "tool_calls": made}
    choice = Choice.model_validate({"index": 0, "finish_reason": finish_reason, "message": message})
    assert (fault(body, choice) is None) is is_right


def test_requests_repeat_and_differ():
    assert request("named", 3) == request("named", 3)
    assert len({json.dumps(request(kind, seed)) for kind in KINDS for seed in range(9)}) == 9 * len(KINDS)
