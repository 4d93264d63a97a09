"""The request bodies of the OpenAI API, with the extensions that vLLM's and SGLang's users send.

Unknown fields are ignored; a null is as good as an absent field. Names in <> tag the alternatives of a type.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from g4jax.sample.params import MAX_LOGPROBS
from server.body import Body, wrong
from server.constraint_schemas import ConstraintBody
from server.conversation_schemas import Message, NamedToolChoice, Tool, ToolChoice
from server.media_schemas import MaxSoftTokens, MediaWishes

MAX_CHOICES = 128
MAX_STOPS = 16
MAX_SEED = 2**63 - 1


class StreamOptions(Body):
    """`repeat_tool_call_header` (an extension): every piece of a tool call has id, type and name, not only the first.

    It is for clients that check each chunk by itself; one that joins the names of the pieces must not ask for it.
    """

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    repeat_tool_call_header: bool | None = None


StopText = Annotated[str, Field(min_length=1)]
Stops = Annotated[
    list[StopText], Field(max_length=MAX_STOPS), BeforeValidator(lambda v: [v] if isinstance(v, str) else v)
]
TokenId = Annotated[int, Field(ge=0)]


class GenerationBody(ConstraintBody):
    """What chat completions and completions have in common.

    logit_bias: token ids, as text, to what is added to their logits. prompt_logprobs: the log probabilities of the
    prompt's tokens and of so many of the likeliest. return_tokens_as_token_ids: tokens of log probabilities are named
    token_id:ID. thinking_token_budget: most tokens of thought, -1 is no limit. cache_salt: cached pages are shared
    only under the same one.
    """

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
    prompt_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    return_tokens_as_token_ids: bool | None = None
    thinking_token_budget: int | None = Field(None, ge=-1)
    cache_salt: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _streamed_or_not(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise wrong("stream_options", "is only allowed when stream is true")
        if self.prompt_logprobs is not None and self.stream:
            raise wrong("prompt_logprobs", "is only allowed when stream is not true")
        return self

    @property
    def num_logprobs(self) -> int | None:
        """How many of the likeliest tokens go with each token of the answer; None: no log probabilities at all."""
        return None

    @property
    def num_prompt_logprobs(self) -> int | None:
        """As `num_logprobs`, for the tokens of the prompt."""
        return self.prompt_logprobs

    @property
    def wants_usage_chunk(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def wants_running_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.continuous_usage_stats)


class ChatRequest(GenerationBody):
    """POST /v1/chat/completions.

    continue_final_message: the answer goes on with the last message, which is the assistant's. add_generation_prompt
    false: the prompt ends behind the last message, and no turn of the model is opened. max_soft_tokens: most tokens of
    an image that says nothing of its detail.
    """

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    separate_reasoning: bool | None = None
    include_reasoning: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    max_soft_tokens: MaxSoftTokens | None = None
    mm_processor_kwargs: MediaWishes | None = None

    @model_validator(mode="after")
    def _choice_fits_tools(self) -> Self:
        names = [tool.function.name for tool in self.tools or []]
        if isinstance(self.tool_choice, NamedToolChoice) and self.tool_choice.function.name not in names:
            raise wrong("tool_choice", f"names the function {self.tool_choice.function.name!r}, which is not in tools")
        if self.tool_choice == "required" and not names:
            raise wrong("tool_choice", "is required, but there are no tools")
        return self

    @model_validator(mode="after")
    def _logprobs_fit(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise wrong("top_logprobs", "needs logprobs to be true")
        return self

    @model_validator(mode="after")
    def _last_message_can_go_on(self) -> Self:
        if self.continue_final_message:
            if self.add_generation_prompt:
                raise wrong("continue_final_message", "excludes add_generation_prompt")
            last = self.messages[-1]
            if last.role != "assistant" or last.tool_calls:
                raise wrong("continue_final_message", "needs the assistant's own text, without calls, as last message")
        return self

    @property
    def num_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def named_tool(self) -> str | None:
        """The one function that must be called."""
        return self.tool_choice.function.name if isinstance(self.tool_choice, NamedToolChoice) else None

    @property
    def forces_call(self) -> bool:
        return self.tool_choice == "required" or self.named_tool is not None

    @property
    def most_soft_tokens(self) -> int | None:
        """Most tokens of an image, by either name."""
        vllm = None if self.mm_processor_kwargs is None else self.mm_processor_kwargs.max_soft_tokens
        return self.max_soft_tokens or vllm

    @property
    def repeats_call_header(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.repeat_tool_call_header)


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
    """POST /v1/completions.

    max_tokens: 0 is for the prompt alone, with echo. logprobs: also of the prompt's tokens, with echo.
    """

    prompt: Prompt
    max_tokens: int | None = Field(None, ge=0)
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)

    @model_validator(mode="after")
    def _no_tokens_only_with_echo(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            raise wrong("max_tokens", "must be at least 1 without echo")
        return self

    @property
    def num_logprobs(self) -> int | None:
        return self.logprobs

    @property
    def num_prompt_logprobs(self) -> int | None:
        wanted = [n for n in (self.prompt_logprobs, self.logprobs if self.echo else None) if n is not None]
        return max(wanted, default=None)
