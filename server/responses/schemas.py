"""The body of POST /v1/responses."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from server.body import Body, wrong
from server.conversation_schemas import OtherPart, part_kinds, text_or_parts
from server.media_schemas import Detail, InputAudioPart

Role = Literal["user", "assistant", "system", "developer"]


class TextPart(Body):
    """Text of an answer keeps what else it came with."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: Literal["input_text", "output_text", "text"]
    text: str


class ImagePart(Body):
    type: Literal["input_image"]
    image_url: str | None = None
    file_id: str | None = None
    detail: Detail | None = None

    @model_validator(mode="after")
    def _address_where_needed(self) -> Self:
        if self.file_id is not None:
            raise wrong("file_id", "files are not kept here; give image_url")
        if self.image_url is None:
            raise wrong("image_url", "is missing")
        return self


Part = Annotated[
    Annotated[TextPart, Tag("<input_text>")]
    | Annotated[TextPart, Tag("<output_text>")]
    | Annotated[TextPart, Tag("<text>")]
    | Annotated[ImagePart, Tag("<input_image>")]
    | Annotated[InputAudioPart, Tag("<input_audio>")]
    | Annotated[OtherPart, Tag("<other>")],
    part_kinds("input_text", "output_text", "text", "input_image", "input_audio"),
]
Content = Annotated[Annotated[str, Tag("<text>")] | Annotated[list[Part], Tag("<parts>")], Discriminator(text_or_parts)]


class MessageItem(Body):
    type: Literal["message"] = "message"
    id: str | None = None
    role: Role
    content: Content


class FunctionCallItem(Body):
    """`arguments` is JSON text."""

    type: Literal["function_call"]
    id: str | None = None
    call_id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    arguments: str


class FunctionCallOutputItem(Body):
    type: Literal["function_call_output"]
    id: str | None = None
    call_id: str
    output: Content


class ReasoningText(Body):
    type: Literal["reasoning_text", "summary_text"]
    text: str


class ReasoningItem(Body):
    type: Literal["reasoning"]
    id: str | None = None
    summary: list[ReasoningText] = []
    content: list[ReasoningText] | None = None


class ItemReference(Body):
    """An item of a stored response, by its id."""

    type: Literal["item_reference"] | None = None
    id: str


class OtherItem(Body):
    """Something of a type that is not served."""

    type: str


def _item_kind(value: Any) -> str:
    if not isinstance(value, dict):
        return "<other>"
    kind = value.get("type")
    if kind is None:
        return "<message>" if "role" in value else "<item_reference>" if "id" in value else "<other>"
    kinds = ("message", "function_call", "function_call_output", "reasoning", "item_reference")
    return f"<{kind}>" if kind in kinds else "<other>"


Item = MessageItem | FunctionCallItem | FunctionCallOutputItem | ReasoningItem
"""A piece of a conversation."""

InputItem = Annotated[
    Annotated[MessageItem, Tag("<message>")]
    | Annotated[FunctionCallItem, Tag("<function_call>")]
    | Annotated[FunctionCallOutputItem, Tag("<function_call_output>")]
    | Annotated[ReasoningItem, Tag("<reasoning>")]
    | Annotated[ItemReference, Tag("<item_reference>")]
    | Annotated[OtherItem, Tag("<other>")],
    Discriminator(_item_kind),
]

Input = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[InputItem], Tag("<items>")],
    Discriminator(lambda value: "<items>" if isinstance(value, list) else "<text>"),
]


class FunctionTool(Body):
    """A function that the model may call; other types of tools run on a server that this one is not."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedToolChoice(Body):
    type: Literal["function"]
    name: str


ToolChoice = Annotated[
    Annotated[Literal["auto", "none", "required"], Tag("<mode>")] | Annotated[NamedToolChoice, Tag("<named>")],
    Discriminator(lambda value: "<mode>" if isinstance(value, str) else "<named>"),
]


class Reasoning(Body):
    """A wish for a summary is taken and not fulfilled: the thought itself is in the answer."""

    effort: str | None = None


class TextFormat(Body):
    """`schema_` is the field "schema"."""

    model_config = ConfigDict(serialize_by_alias=True)

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _schema_where_needed(self) -> Self:
        if self.type == "json_schema" and (self.name is None or self.schema_ is None):
            raise wrong("name" if self.name is None else "schema", "is needed for the type json_schema")
        return self


class TextConfig(Body):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class ResponsesRequest(Body):
    """Limits that a chat has too are left to the chat's own schema."""

    model: str | None = None
    input: Input
    instructions: str | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    include: list[str] | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    metadata: Metadata | None = None
    truncation: Literal["auto", "disabled"] | None = None
    background: bool | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    max_tool_calls: int | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
