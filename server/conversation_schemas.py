"""The conversation in a request: messages, tools, and which of them the model must call."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from server.body import Body, wrong
from server.media_schemas import AudioUrlPart, ImageUrlPart, InputAudioPart, VideoUrlPart


class TextPart(Body):
    type: Literal["text"]
    text: str


class OtherPart(Body):
    """Something of a type that is not served."""

    type: str


def part_kinds(*served: str) -> Discriminator:
    """Tells parts apart by their type, as they come and as they are written; those of no served type are <other>."""

    def kind(value: Any) -> str:
        name = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        return f"<{name}>" if name in served else "<other>"

    return Discriminator(kind)


ContentPart = Annotated[
    Annotated[TextPart, Tag("<text>")]
    | Annotated[ImageUrlPart, Tag("<image_url>")]
    | Annotated[VideoUrlPart, Tag("<video_url>")]
    | Annotated[AudioUrlPart, Tag("<audio_url>")]
    | Annotated[InputAudioPart, Tag("<input_audio>")]
    | Annotated[OtherPart, Tag("<other>")],
    part_kinds("text", "image_url", "video_url", "audio_url", "input_audio"),
]
"""A piece of a message; which roles may hold media is decided in `media`."""


def text_or_parts(value: Any) -> str:
    return "<parts>" if isinstance(value, list) else "<text>"


def _text_parts_or_object(value: Any) -> str:
    return "<object>" if isinstance(value, dict) else text_or_parts(value)


MessageContent = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[list[ContentPart], Tag("<parts>")]
    | Annotated[dict[str, Any], Tag("<object>")],
    Discriminator(_text_parts_or_object),
]


class CalledFunction(Body):
    name: str = Field(min_length=1)
    arguments: str | dict[str, Any] | None = None


class PastToolCall(Body):
    """A call that the assistant made earlier. `arguments` is JSON text, or the object itself."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Body):
    """The content of a tool's result may be an object; the model reads it as JSON."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: MessageContent | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[PastToolCall] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _content_where_needed(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise wrong("content", f"a message of role {self.role} needs it")
        if isinstance(self.content, dict) and self.role != "tool":
            raise wrong("content", "must be a text or a list of parts; only a tool's result may be an object")
        return self


class FunctionSpec(BaseModel):
    """A function that the model may call; fields unknown here go to the template as they are.

    `strict`: the arguments of a call have the form that `parameters` demands, also where the model chooses to call.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    name: str = Field(pattern=r"^[A-Za-z0-9_.:-]{1,256}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    type: Literal["function"]
    function: FunctionSpec


class NamedFunction(Body):
    name: str


class NamedToolChoice(Body):
    type: Literal["function"]
    function: NamedFunction


def _mode_or_named(value: Any) -> str:
    return "<mode>" if isinstance(value, str) else "<named>"


ToolChoice = Annotated[
    Annotated[Literal["auto", "none", "required"], Tag("<mode>")] | Annotated[NamedToolChoice, Tag("<named>")],
    Discriminator(_mode_or_named),
]
