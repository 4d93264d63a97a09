"""The body of /v1/responses as the fields of a chat request."""

from collections.abc import Sequence
from typing import Any

import msgspec

from server.errors import ApiError, invalid, unsupported
from server.media_schemas import InputAudioPart
from server.responses.schemas import (
    FunctionCallItem,
    FunctionCallOutputItem,
    ImagePart,
    Item,
    MessageItem,
    NamedToolChoice,
    Part,
    ReasoningItem,
    ResponsesRequest,
    TextFormat,
    TextPart,
)
from server.translate.job import ORIGIN, FieldNames
from server.translate.turns import Content, Turns

LOGPROBS = "message.output_text.logprobs"
"""What a client includes to get log probabilities."""

NAMES: FieldNames = (
    (r"messages.*", "input"),
    (r"max_completion_tokens", "max_output_tokens"),
    (r"reasoning_effort", "reasoning.effort"),
    (r"response_format\.json_schema", "text.format"),
    (r"response_format", "text.format"),
    (r"logprobs", "include"),
    (r"tools(\[\d+\])\.function", r"tools\1"),
    (r"tool_choice\.function", "tool_choice"),
)


def check_supported(body: ResponsesRequest) -> None:
    """400 for what this server does not do."""
    if body.background:
        raise unsupported("background", "background mode")
    if body.conversation is not None:
        raise unsupported("conversation", "a conversation object, in place of which previous_response_id goes on; it")
    if body.prompt is not None:
        raise unsupported("prompt", "a prompt template")
    if body.truncation == "auto":
        raise unsupported("truncation", "truncation auto")
    if body.top_logprobs and LOGPROBS not in (body.include or ()):
        raise invalid("top_logprobs", f"needs {LOGPROBS} in include")


def chat_fields(body: ResponsesRequest, past: Sequence[Item], own: Sequence[Item]) -> dict[str, Any]:
    """The chat that the conversation up to here, `past`, and the items of this request ask for."""
    turns = Turns()
    if body.instructions is not None:
        turns.say("system", body.instructions)
    for item in past:
        _add(turns, item, "previous_response_id")
    for i, item in enumerate(own):
        _add(turns, item, "input" if isinstance(body.input, str) else f"input[{i}]")
    logprobs = LOGPROBS in (body.include or ())
    fields = {
        "model": body.model,
        "messages": turns.messages(),
        "max_completion_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "tools": [_tool(tool.model_dump(exclude={"type"}, exclude_none=True)) for tool in body.tools or []] or None,
        "tool_choice": _tool_choice(body),
        "parallel_tool_calls": body.parallel_tool_calls,
        "response_format": None if body.text is None else _response_format(body.text.format),
        "reasoning_effort": None if body.reasoning is None else body.reasoning.effort,
        "logprobs": logprobs or None,
        "top_logprobs": body.top_logprobs if logprobs else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _add(turns: Turns, item: Item, param: str) -> None:
    match item:
        case MessageItem(role="assistant"):
            turns.answer("".join(_texts(item.content, f"{param}.content")))
        case MessageItem(role="system" | "developer" as role):
            texts = _texts(item.content, f"{param}.content")
            turns.say(role, [{"type": "text", "text": text} for text in texts])
        case MessageItem(role="user"):
            turns.say("user", _content(item.content, f"{param}.content"))
        case ReasoningItem():
            turns.think("\n\n".join(piece.text for piece in item.content or item.summary))
        case FunctionCallItem():
            turns.call(item.call_id, item.name, _arguments(item.arguments, f"{param}.arguments"))
        case FunctionCallOutputItem():
            output = _content(item.output, f"{param}.output")
            try:
                turns.result(item.call_id, output)
            except KeyError:
                raise invalid(
                    f"{param}.call_id", f"no function_call {item.call_id!r} stands before its output"
                ) from None


def _content(content: str | list[Part], param: str) -> Content:
    if isinstance(content, str):
        return content
    return [_chat_part(part, f"{param}[{i}]") for i, part in enumerate(content)]


def _chat_part(part: Part, param: str) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            image_url = {"url": part.image_url, "detail": part.detail}
            return {"type": "image_url", "image_url": image_url, ORIGIN: f"{param}.image_url"}
        case InputAudioPart():
            return part.model_dump(exclude_none=True) | {ORIGIN: f"{param}.input_audio.data"}
    raise _misplaced(part, param)


def _texts(content: str | list[Part], param: str) -> list[str]:
    if isinstance(content, str):
        return [content]
    for i, part in enumerate(content):
        if not isinstance(part, TextPart):
            raise _misplaced(part, f"{param}[{i}]")
    return [part.text for part in content if isinstance(part, TextPart)]


def _misplaced(part: Part, param: str) -> ApiError:
    return unsupported(f"{param}.type", f"content of type {part.type!r} in this place")


def _arguments(text: str, param: str) -> dict[str, Any]:
    try:
        arguments = msgspec.json.decode(text) if text.strip() else {}
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise invalid(param, "must be a JSON object, as text")
    return arguments


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": function}


def _tool_choice(body: ResponsesRequest) -> str | dict[str, Any] | None:
    choice = body.tool_choice
    return _tool({"name": choice.name}) if isinstance(choice, NamedToolChoice) else choice


def _response_format(wish: TextFormat | None) -> dict[str, Any] | None:
    if wish is None:
        return None
    schema = wish.model_dump(exclude={"type"}, exclude_none=True)
    return {"type": wish.type} | ({"json_schema": schema} if wish.type == "json_schema" else {})
