"""The bodies of POST /v1/messages and /v1/messages/count_tokens. `cache_control` and `metadata` change nothing here."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from server.body import Body


class TextBlock(Body):
    type: Literal["text"]
    text: str


class ThinkingBlock(Body):
    type: Literal["thinking"]
    thinking: str


class RedactedThinkingBlock(Body):
    """A thought that nobody here can read."""

    type: Literal["redacted_thinking"]


class ToolUseBlock(Body):
    type: Literal["tool_use"]
    id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    input: dict[str, Any]


class OtherBlock(Body):
    """Something of a type that is not served."""

    type: str


def _kinds(*served: str) -> Discriminator:
    """Tells blocks apart by their type; those of no served type are <other>."""

    def kind(value: Any) -> str:
        name = value.get("type") if isinstance(value, dict) else None
        return f"<{name}>" if name in served else "<other>"

    return Discriminator(kind)


def _text_or_blocks(value: Any) -> str:
    return "<blocks>" if isinstance(value, list) else "<text>"


ResultBlock = Annotated[
    Annotated[TextBlock, Tag("<text>")] | Annotated[OtherBlock, Tag("<other>")],
    _kinds("text"),
]


class ToolResultBlock(Body):
    type: Literal["tool_result"]
    tool_use_id: str
    content: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[list[ResultBlock], Tag("<blocks>")], Discriminator(_text_or_blocks)
    ] = ""
    is_error: bool | None = None


Block = Annotated[
    Annotated[TextBlock, Tag("<text>")]
    | Annotated[ThinkingBlock, Tag("<thinking>")]
    | Annotated[RedactedThinkingBlock, Tag("<redacted_thinking>")]
    | Annotated[ToolUseBlock, Tag("<tool_use>")]
    | Annotated[ToolResultBlock, Tag("<tool_result>")]
    | Annotated[OtherBlock, Tag("<other>")],
    _kinds("text", "thinking", "redacted_thinking", "tool_use", "tool_result"),
]


class Message(Body):
    role: Literal["user", "assistant", "system"]
    content: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[list[Block], Tag("<blocks>")], Discriminator(_text_or_blocks)
    ]


class Tool(Body):
    """A function of the client; tools of other types run on a server that this one is not."""

    type: Literal["custom"] | None = None
    name: str
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None


class ToolChoice(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Body):
    """`display`: omitted leaves the thought out of the answer."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(None, ge=1)
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(Body):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Body):
    format: OutputFormat | None = None


class CountTokensRequest(Body):
    """What makes the prompt."""

    model: str
    messages: list[Message] = Field(min_length=1)
    system: (
        Annotated[
            Annotated[str, Tag("<text>")] | Annotated[list[TextBlock], Tag("<blocks>")], Discriminator(_text_or_blocks)
        ]
        | None
    ) = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None


class MessagesRequest(CountTokensRequest):
    """Limits that a chat has too are left to the chat's own schema."""

    max_tokens: int
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stream: bool | None = None
