"""The request bodies of the OpenAI API, with the extensions that vLLM's and SGLang's users send.

Unknown fields are ignored; a null is as good as an absent field. Names in <> tag the alternatives of a type.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

MAX_CHOICES = 128
MAX_STOPS = 16
MAX_SEED = 2**63 - 1


class Body(BaseModel):
    """Values are taken as they are: "5" is no number and 1 is no boolean."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


def wrong(param: str, message: str) -> PydanticCustomError:
    """An error of two fields together, put down to `param`."""
    return PydanticCustomError("field", "{text}", {"param": param, "text": message})


class StreamOptions(Body):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


StopText = Annotated[str, Field(min_length=1)]
Stops = Annotated[
    list[StopText], Field(max_length=MAX_STOPS), BeforeValidator(lambda v: [v] if isinstance(v, str) else v)
]
TokenId = Annotated[int, Field(ge=0)]


class GenerationBody(Body):
    """What chat completions and completions have in common."""

    model: str | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    max_tokens: int | None = Field(None, ge=1)
    min_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=2)
    seed: int | None = Field(None, ge=-MAX_SEED - 1, le=MAX_SEED)
    stop: Stops | None = None
    stop_token_ids: list[TokenId] | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: dict[str, Any] | None = None
    regex: str | None = None
    ebnf: str | None = None
    json_schema: str | dict[str, Any] | None = None

    @model_validator(mode="after")
    def _stream_options_need_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise wrong("stream_options", "is only allowed when stream is true")
        return self

    @property
    def wants_usage_chunk(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def wants_running_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.continuous_usage_stats)


class ContentPart(BaseModel):
    """A piece of a message; which types are served is decided in `convert`."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str
    text: str | None = None


def _text_or_parts(value: Any) -> str:
    return "<parts>" if isinstance(value, list) else "<text>"


Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[ContentPart], Tag("<parts>")], Discriminator(_text_or_parts)
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
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[PastToolCall] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _content_where_needed(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise wrong("content", f"a message of role {self.role} needs it")
        return self


class FunctionSpec(BaseModel):
    """A function that the model may call; fields unknown here go to the template as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: str = Field(pattern=r"^[A-Za-z0-9_.:-]{1,256}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None


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


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]


class ChatRequest(GenerationBody):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    separate_reasoning: bool | None = None
    include_reasoning: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    @model_validator(mode="after")
    def _choice_fits_tools(self) -> Self:
        names = [tool.function.name for tool in self.tools or []]
        if isinstance(self.tool_choice, NamedToolChoice) and self.tool_choice.function.name not in names:
            raise wrong("tool_choice", f"names the function {self.tool_choice.function.name!r}, which is not in tools")
        if self.tool_choice == "required" and not names:
            raise wrong("tool_choice", "is required, but there are no tools")
        return self


def _prompt_kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "<text>"
    first = value[0] if isinstance(value, list) and value else None
    kinds = {str: "<texts>", int: "<ids>", list: "<id lists>"}
    return kinds.get(type(first))


Prompt = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[list[str], Tag("<texts>")]
    | Annotated[list[TokenId], Tag("<ids>")]
    | Annotated[list[list[TokenId]], Tag("<id lists>")],
    Discriminator(
        _prompt_kind,
        custom_error_type="prompt",
        custom_error_message="must be a text, a list of token ids, or a list of one of these, and not empty",
    ),
]


class CompletionRequest(GenerationBody):
    """POST /v1/completions."""

    prompt: Prompt
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)
    logprobs: int | None = Field(None, ge=0, le=20)
