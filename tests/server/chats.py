"""Chats with the official client, streamed or not, in a form that can be compared."""

import json

import httpx
import pydantic

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def ask(served, text: str, **more):
    return served.client.chat.completions.create(model="nano", messages=user(text), **more)


def joined(chunks) -> dict[int, dict]:
    """What a client makes of a stream, choice by choice."""
    choices: dict[int, dict] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            whole = choices.setdefault(choice.index, {"content": "", "reasoning": "", "calls": [], "finish": []})
            whole["content"] += choice.delta.content or ""
            whole["reasoning"] += getattr(choice.delta, "reasoning_content", None) or ""
            for piece in choice.delta.tool_calls or []:
                if piece.id:
                    assert piece.index == len(whole["calls"]) and piece.type == "function"
                    whole["calls"].append([piece.function.name, piece.function.arguments])
                else:
                    whole["calls"][piece.index][1] += piece.function.arguments
            if choice.finish_reason:
                whole["finish"].append(choice.finish_reason)
    return choices


def whole(answer) -> dict[int, dict]:
    return {
        choice.index: {
            "content": choice.message.content or "",
            "reasoning": getattr(choice.message, "reasoning_content", None) or "",
            "calls": [[call.function.name, call.function.arguments] for call in choice.message.tool_calls or []],
            "finish": [choice.finish_reason],
        }
        for choice in answer.choices
    }


def assert_named_events(url: str, body: dict, official: pydantic.TypeAdapter) -> None:
    """The bytes of a stream: named events, each of which the official client's types take as it stands."""
    answer = httpx.post(url, json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, rest = answer.text.split("\n\n")
    assert events and rest == ""
    for event in events:
        name, data = event.split("\n")
        fields = json.loads(data.removeprefix("data: "))
        assert name == f"event: {fields['type']}"
        official.validate_python(fields, strict=True)
