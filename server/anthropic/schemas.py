"""The bodies of POST /v1/messages and /v1/messages/count_tokens. `cache_control` and `metadata` change nothing here."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from server.body import Body
from server.conversation_schemas import OtherPart as OtherBlock
from server.conversation_schemas import part_kinds


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


class Base64Source(Body):
    """What the data is, is seen in the data itself."""

    type: Literal["base64"]
    media_type: str | None = None
    data: str


class UrlSource(Body):
    type: Literal["url"]
    url: str


class ImageBlock(Body):
    type: Literal["image"]
    source: Annotated[
        Annotated[Base64Source, Tag("<base64>")]
        | Annotated[UrlSource, Tag("<url>")]
        | Annotated[OtherBlock, Tag("<other>")],
        part_kinds("base64", "url"),
    ]


def _text_or_blocks(value: Any) -> str:
    return "<blocks>" if isinstance(value, list) else "<text>"


ResultBlock = Annotated[
    Annotated[TextBlock, Tag("<text>")] | Annotated[ImageBlock, Tag("<image>")] | Annotated[OtherBlock, Tag("<other>")],
    part_kinds("text", "image"),
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
    | Annotated[ImageBlock, Tag("<image>")]
    | Annotated[ThinkingBlock, Tag("<thinking>")]
    | Annotated[RedactedThinkingBlock, Tag("<redacted_thinking>")]
    | Annotated[ToolUseBlock, Tag("<tool_use>")]
    | Annotated[ToolResultBlock, Tag("<tool_result>")]
    | Annotated[OtherBlock, Tag("<other>")],
    part_kinds("text", "image", "thinking", "redacted_thinking", "tool_use", "tool_result"),
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
