"""The body of /v1/messages as the fields of a chat request."""

from typing import Any

from server.anthropic.schemas import (
    Base64Source,
    Block,
    CountTokensRequest,
    ImageBlock,
    Message,
    MessagesRequest,
    OtherBlock,
    RedactedThinkingBlock,
    ResultBlock,
    TextBlock,
    ThinkingBlock,
    Tool,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
    UrlSource,
)
from server.errors import ApiError, invalid, unsupported
from server.translate.job import ORIGIN, FieldNames
from server.translate.turns import Content, Turns

NAMES: FieldNames = (
    (r"messages\[.*", "messages"),
    (r"max_completion_tokens", "max_tokens"),
    (r"stop\b", "stop_sequences"),
    (r"response_format\.json_schema", "output_config.format"),
    (r"thinking_token_budget", "thinking.budget_tokens"),
    (r"continue_final_message", "messages"),
    (r"tools(\[\d+\])\.function\.parameters", r"tools\1.input_schema"),
    (r"tools(\[\d+\])\.function", r"tools\1"),
    (r"tool_choice\.function", "tool_choice"),
)

_MODES = {"auto": "auto", "any": "required", "none": "none"}


def prompt_fields(body: CountTokensRequest) -> dict[str, Any]:
    """What decides about the prompt."""
    turns = Turns()
    if body.system is not None:
        turns.say("system", _texts(body.system))
    for i, message in enumerate(body.messages):
        _add(turns, message, f"messages[{i}]")
    thinking = body.thinking
    return _given(
        model=body.model,
        messages=turns.messages(),
        continue_final_message=body.messages[-1].role == "assistant" or None,
        tools=[_tool(tool) for tool in body.tools or []] or None,
        tool_choice=None if body.tool_choice is None else _tool_choice(body.tool_choice),
        chat_template_kwargs=None if thinking is None else {"enable_thinking": thinking.type != "disabled"},
    )


def chat_fields(body: MessagesRequest) -> dict[str, Any]:
    thinking, choice = body.thinking, body.tool_choice
    wanted = None if body.output_config is None else body.output_config.format
    return prompt_fields(body) | _given(
        max_completion_tokens=body.max_tokens,
        stop=body.stop_sequences,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        parallel_tool_calls=False if choice is not None and choice.disable_parallel_tool_use else None,
        thinking_token_budget=None if thinking is None else thinking.budget_tokens,
        include_reasoning=False if thinking is not None and thinking.display == "omitted" else None,
        response_format=None if wanted is None else _format(wanted.schema_),
    )


def _add(turns: Turns, message: Message, param: str) -> None:
    if message.role != "assistant":
        return _add_given(turns, message, param)
    if isinstance(message.content, str):
        return turns.answer(message.content)
    for i, block in enumerate(message.content):
        match block:
            case TextBlock():
                turns.answer(block.text)
            case ThinkingBlock():
                turns.think(block.thinking)
            case RedactedThinkingBlock():
                pass
            case ToolUseBlock():
                turns.call(block.id, block.name, block.input)
            case _:
                raise _misplaced(block, message.role, f"{param}.content[{i}]")


def _add_given(turns: Turns, message: Message, param: str) -> None:
    """What the assistant did not write."""
    assert message.role != "assistant"
    if isinstance(message.content, str):
        return turns.say(message.role, message.content)
    parts: list[dict[str, Any]] = []
    for i, block in enumerate(message.content):
        match block:
            case TextBlock():
                parts.append(_text(block))
            case ImageBlock() if message.role == "user":
                parts.append(_image(block, f"{param}.content[{i}]"))
            case ToolResultBlock() if message.role == "user":
                _add_result(turns, block, f"{param}.content[{i}]")
            case _:
                raise _misplaced(block, message.role, f"{param}.content[{i}]")
    if parts or not message.content:
        turns.say(message.role, parts)


def _add_result(turns: Turns, block: ToolResultBlock, param: str) -> None:
    text, images = _result_parts(block.content, f"{param}.content")
    text = f"Error: {text}" if block.is_error else text
    try:
        turns.result(block.tool_use_id, [{"type": "text", "text": text}, *images] if images else text)
    except KeyError:
        message = f"no tool_use with the id {block.tool_use_id!r} stands before its result"
        raise invalid(f"{param}.tool_use_id", message) from None


def _result_parts(content: str | list[ResultBlock], param: str) -> tuple[str, list[dict[str, Any]]]:
    """The text of a tool's result, and its images, which the model sees behind the text."""
    if isinstance(content, str):
        return content, []
    texts, images = [], []
    for i, block in enumerate(content):
        match block:
            case TextBlock():
                texts.append(block.text)
            case ImageBlock():
                images.append(_image(block, f"{param}[{i}]"))
            case _:
                raise unsupported(f"{param}[{i}].type", f"content of type {block.type!r}")
    return "\n".join(texts), images


def _misplaced(block: Block, role: str, param: str) -> ApiError:
    if isinstance(block, OtherBlock):
        return unsupported(f"{param}.type", f"content of type {block.type!r}")
    return invalid(f"{param}.type", f"a message of role {role} cannot hold {block.type}")


def _texts(content: str | list[TextBlock]) -> Content:
    if isinstance(content, str):
        return content
    return [_text(block) for block in content]


def _text(block: TextBlock) -> dict[str, Any]:
    return {"type": "text", "text": block.text}


def _image(block: ImageBlock, param: str) -> dict[str, Any]:
    match block.source:
        case Base64Source(data=data):
            url, origin = f"data:;base64,{data}", f"{param}.source.data"
        case UrlSource(url=url):
            origin = f"{param}.source.url"
        case other:
            raise unsupported(f"{param}.source.type", f"a source of type {other.type!r}, in place of base64 or url,")
    return {"type": "image_url", "image_url": {"url": url}, ORIGIN: origin}


def _tool(tool: Tool) -> dict[str, Any]:
    function = _given(name=tool.name, description=tool.description, parameters=tool.input_schema, strict=tool.strict)
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.type != "tool":
        return _MODES[choice.type]
    if choice.name is None:
        raise invalid("tool_choice.name", "is needed for the type tool")
    return {"type": "function", "function": {"name": choice.name}}


def _format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
