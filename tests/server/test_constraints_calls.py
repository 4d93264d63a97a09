"""Tool calls that are forced, or held to their schemas, with the official client.

The fake engine leaves out of its script whatever the guide does not allow.
"""

import json

import httpx
import openai
import pydantic
import pytest

from tests.server.chats import WEATHER, ask, joined, user, whole
from tests.server.conftest import TOKENIZER

ROME = '<|tool_call>call:weather{city:<|"|>Rome<|"|>,days:3}<tool_call|>'
OSLO = '<|tool_call>call:weather{city:<|"|>Oslo<|"|>}<tool_call|>'
TIME = "<|tool_call>call:time{}<tool_call|>"
ANSWERS = {
    "prose": f"I will look. {ROME}It comes.<turn|>",
    "both": f"{ROME}{OSLO}<|tool_response>",
    "clock": f"{ROME}{TIME}<|tool_response>",
    "think": f"<|channel>thought\nI call it.<channel|>Well. {ROME}<|tool_response>",
    "wrong": '<|tool_call>call:weather{town:<|"|>Rome<|"|>,city:<|"|>Bonn<|"|>,days:<|"|>5<|"|>}<tool_call|><turn|>',
    "answer": "No call is needed.<turn|>",
}
TIME_TOOL = {"type": "function", "function": {"name": "time", "description": "The time of day."}}
PARAMETERS = WEATHER["function"]["parameters"] | {"required": ["city"], "additionalProperties": False}
STRICT = {"type": "function", "function": {"name": "weather", "strict": True, "parameters": PARAMETERS}}
NAMED = {"type": "function", "function": {"name": "weather"}}
THINK = {"chat_template_kwargs": {"enable_thinking": True}}


class Place(pydantic.BaseModel):
    city: str


def _choice(served, text: str, *, stream: bool = False, **more) -> dict:
    (choice,) = (joined if stream else whole)(ask(served, text, stream=stream, **more)).values()
    assert len(choice["finish"]) == 1
    return choice


def _called(choice: dict) -> list[tuple[str, dict]]:
    return [(name, json.loads(arguments)) for name, arguments in choice["calls"]]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", NAMED])  # rows 65, 67
def test_forced_call(served, choice, stream):
    made = _choice(served, "prose", tools=[WEATHER, TIME_TOOL], tool_choice=choice, stream=stream)
    assert _called(made) == [("weather", {"city": "Rome", "days": 3})]
    assert (made["content"], made["finish"]) == ("", ["tool_calls"])


def test_content_of_a_forced_call_is_null(served):
    message = ask(served, "prose", tools=[WEATHER], tool_choice="required").choices[0].message
    assert message.content is None and message.tool_calls[0].id.startswith("call_")


def test_named_tool_is_the_one_that_is_called(served):  # row 67
    named = {"type": "function", "function": {"name": "time"}}
    assert _called(_choice(served, "clock", tools=[WEATHER, TIME_TOOL], tool_choice=named)) == [("time", {})]


def test_named_tool_is_called_once(served):
    assert len(_choice(served, "both", tools=[WEATHER], tool_choice=NAMED)["calls"]) == 1


@pytest.mark.parametrize("choice", ["required", NAMED])  # row 66
@pytest.mark.parametrize("stream", [False, True])
def test_forced_call_that_is_cut(served, choice, stream):
    made = _choice(served, "prose", tools=[WEATHER], tool_choice=choice, max_tokens=1, stream=stream)
    assert (made["calls"], made["finish"]) == ([], ["length"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", NAMED])  # row 80
def test_forced_call_after_a_thought(served, choice, stream):
    made = _choice(served, "think", tools=[WEATHER], tool_choice=choice, extra_body=THINK, stream=stream)
    assert (made["reasoning"], made["content"]) == ("I call it.", "")
    assert _called(made) == [("weather", {"city": "Rome", "days": 3})] and made["finish"] == ["tool_calls"]


def test_forced_call_goes_before_a_response_format(served):
    made = _choice(served, "prose", tools=[WEATHER], tool_choice="required", response_format={"type": "json_object"})
    assert [name for name, _ in made["calls"]] == ["weather"] and made["content"] == ""


@pytest.mark.parametrize(("parallel", "count"), [(None, 2), (True, 2), (False, 1)])  # rows 72, 73
def test_calls_side_by_side(served, parallel, count):
    more = {} if parallel is None else {"parallel_tool_calls": parallel}
    for choice in ("auto", "required"):
        message = ask(served, "both", tools=[WEATHER], tool_choice=choice, **more).choices[0].message
        assert len({call.id for call in message.tool_calls}) == count
    guided = served.engine.requests[-1].guide
    assert guided is not None


def test_strict_tool_that_may_be_called(served):  # row 71
    made = _choice(served, "wrong", tools=[STRICT], tool_choice="auto")
    assert _called(made) == [("weather", {"city": "Bonn", "days": 5})]
    made = _choice(served, "answer", tools=[STRICT])
    assert (made["content"], made["calls"], made["finish"]) == ("No call is needed.", [], ["stop"])


def test_tool_that_is_not_strict_is_called_freely(served):
    assert _called(_choice(served, "wrong", tools=[WEATHER]))[0][1]["town"] == "Rome"
    assert served.engine.requests[-1].guide is None


def test_tool_without_parameters(served):  # row 81
    assert _called(_choice(served, "clock", tools=[TIME_TOOL], tool_choice="required")) == [("time", {})]


def test_choices_call_each_by_itself(served):  # row 79
    answer = ask(served, "both", n=2, tools=[WEATHER], tool_choice="required")
    chunks = ask(served, "both", n=2, tools=[WEATHER], tool_choice="required", stream=True)
    assert joined(chunks) == whole(answer) and [len(c["calls"]) for c in whole(answer).values()] == [2, 2]
    assert len({call.id for choice in answer.choices for call in choice.message.tool_calls}) == 4


def test_tool_choice_none_is_not_guided(served):  # row 64
    made = _choice(served, "prose", tools=[STRICT], tool_choice="none")
    assert (made["content"], made["calls"], made["finish"]) == ("I will look. It comes.", [], ["stop"])
    assert served.engine.requests[-1].guide is None


def test_empty_list_of_tools_is_none(served):  # row 83
    assert _choice(served, "answer", tools=[])["finish"] == ["stop"]
    assert TOKENIZER.control.tool_open not in served.engine.requests[-1].prompt_ids


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("tool_choice", {"tool_choice": "required"}),  # row 68
        ("tool_choice", {"tool_choice": "required", "tools": []}),
        ("tool_choice", {"tool_choice": NAMED}),
        ("tool_choice", {"tool_choice": NAMED, "tools": [TIME_TOOL]}),  # row 69
        ("tool_choice.type", {"tool_choice": {}, "tools": [WEATHER]}),  # row 70
        ("tool_choice", {"tool_choice": "must", "tools": [WEATHER]}),
        ("tool_choice.function", {"tool_choice": {"type": "function"}, "tools": [WEATHER]}),
        ("tools[0].function.strict", {"tools": [{"type": "function", "function": {"name": "f", "strict": "yes"}}]}),
        (
            "tools",
            {
                "tool_choice": "required",
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}],
            },
        ),
    ],
)
def test_refusals_name_the_field(served, param, body):
    answer = httpx.post(f"{served.url}/v1/chat/completions", json={"messages": user("prose")} | body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param) and served.healthy()


@pytest.mark.parametrize("parallel", [True, False])
def test_header_of_a_call_in_each_of_its_pieces(served, parallel):
    options = {"repeat_tool_call_header": True}
    more = {"tools": [WEATHER], "parallel_tool_calls": parallel, "stream": True}
    chunks = list(ask(served, "both", extra_body={"stream_options": options}, **more))
    pieces = [piece for chunk in chunks for piece in chunk.choices[0].delta.tool_calls or []]
    by_call: dict[int, list] = {}
    for piece in pieces:
        assert piece.type == "function" and piece.function.name == "weather"
        by_call.setdefault(piece.index, []).append(piece)
    assert list(by_call) == ([0, 1] if parallel else [0])
    for pieces in by_call.values():
        assert len(pieces) > 2 and len({piece.id for piece in pieces}) == 1 and pieces[0].function.arguments == ""
        assert json.loads("".join(piece.function.arguments for piece in pieces))["city"] in ("Rome", "Oslo")


def test_header_of_a_call_comes_once(served):
    pieces = [p for c in ask(served, "both", tools=[WEATHER], stream=True) for p in c.choices[0].delta.tool_calls or []]
    assert [piece.index for piece in pieces if piece.id] == [0, 1] and len(pieces) > 4


def test_pydantic_tools(served):
    """The client's own helper makes strict tools and reads their arguments."""
    tool = openai.pydantic_function_tool(Place, name="weather")
    answer = served.client.chat.completions.parse(model="nano", messages=user("both"), tools=[tool])
    calls = answer.choices[0].message.tool_calls
    assert [call.function.parsed_arguments for call in calls] == [Place(city="Rome"), Place(city="Oslo")]
