"""OpenAI messages brought into the form that chat templates expect, and text that must not forge control tokens."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

Message = dict[str, Any]

_PART_TYPES = {"text", "image", "image_url", "input_image", "audio", "input_audio", "audio_url", "video", "video_url"}


def normalize(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Messages as templates want them; the given ones stay as they are.

    The arguments of past tool calls become mappings, `developer` becomes `system`, a tool result that is a mapping or
    a list becomes JSON text, a tool message learns its name from `tool_call_id`, missing content becomes "".

    Errors: ValueError that names the field and says what to send.
    """
    names: dict[str, str] = {}
    normal = []
    for i, message in enumerate(messages):
        if not isinstance(message.get("role"), str):
            raise ValueError(f"messages[{i}].role is missing: give system, user, assistant or tool")
        normal.append(_message(message, f"messages[{i}]", names))
    return normal


def _message(message: Mapping[str, Any], where: str, names: dict[str, str]) -> Message:
    normal = dict(message)
    if normal["role"] == "developer":
        normal["role"] = "system"
    normal["content"] = _content(normal, f"{where}.content")
    calls = normal.get("tool_calls")
    if calls:
        normal["tool_calls"] = [_tool_call(call, f"{where}.tool_calls[{j}]", names) for j, call in enumerate(calls)]
    elif "tool_calls" in normal:
        del normal["tool_calls"]
    if normal["role"] == "tool" and normal.get("tool_call_id") in names:
        normal["name"] = names[normal["tool_call_id"]]
    return normal


def _content(message: Message, where: str) -> str | list[Any]:
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str) or _is_parts(content):
        return content
    if message["role"] == "tool":
        return json.dumps(content, ensure_ascii=False)
    raise ValueError(f"{where} must be a string or a list of parts with a type, not {type(content).__name__}")


def _is_parts(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(p, Mapping) and p.get("type") in _PART_TYPES for p in content)


def _tool_call(call: Any, where: str, names: dict[str, str]) -> Message:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError(f"{where}.function.name is missing: give the name of the called function")
    if isinstance(call.get("id"), str):
        names[call["id"]] = function["name"]
    arguments = _arguments(function.get("arguments"), f"{where}.function.arguments")
    return {**call, "function": {**function, "arguments": arguments}}


def _arguments(arguments: Any, where: str) -> dict[str, Any]:
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not valid JSON ({error}): send the arguments as a JSON object") from None
    if arguments is None:
        return {}
    if not isinstance(arguments, Mapping):
        raise ValueError(f"{where} must be a JSON object, not {type(arguments).__name__}")
    return dict(arguments)


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON-like value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from strings(key)
            yield from strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from strings(item)


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every string changed, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {map_strings(key, change): map_strings(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [map_strings(item, change) for item in value]
    return value
