"""What the server answers, field by field as OpenAI's own types; msgspec encodes it, chunks in about a microsecond.

A field that is UNSET is left out; None is sent as null.
"""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

StopReason = Literal["stop", "length", "tool_calls"]


class PromptDetails(msgspec.Struct):
    cached_tokens: int


class CompletionDetails(msgspec.Struct):
    reasoning_tokens: int


class Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails

    @classmethod
    def count(cls, prompt: int, completion: int, cached: int, reasoning: int) -> "Usage":
        details = PromptDetails(cached), CompletionDetails(reasoning)
        return cls(prompt, completion, prompt + completion, *details)


class Function(msgspec.Struct):
    arguments: str
    name: str | UnsetType = UNSET


class ToolCall(msgspec.Struct):
    """A call, or in a stream the next piece of one: then all but `index` and `arguments` come once, at its start."""

    function: Function
    index: int | UnsetType = UNSET
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class Delta(msgspec.Struct):
    """What a chunk adds. The thought goes by both of its names, `reasoning_content` and `reasoning`."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


class Message(msgspec.Struct):
    content: str | None
    reasoning_content: str | None
    reasoning: str | None
    tool_calls: list[ToolCall] | None
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class TopLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(msgspec.Struct):
    """`token` is what the token spells; `bytes` are those it adds to the text, null for a control token."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct):
    """One entry for each token of the answer: thoughts, calls and the token that ends it included."""

    content: list[TokenLogprob]
    refusal: None = None


class TextLogprobs(msgspec.Struct):
    """Four lists of one length. `text_offset`: where in the choice's text each token begins, in characters."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


class PromptLogprob(msgspec.Struct):
    """`rank` counts from 1; it is left out for a token that is not among the likeliest."""

    logprob: float
    decoded_token: str
    rank: int | UnsetType = UNSET


PromptLogprobs = list[dict[int, PromptLogprob] | None]
"""For each token of the prompt, by id, itself and the likeliest in its place; the first has none."""


class ChunkChoice(msgspec.Struct):
    index: int
    delta: Delta
    finish_reason: StopReason | None = None
    logprobs: ChatLogprobs | None = None
    matched_stop: int | str | None | UnsetType = UNSET


class ChatChoice(msgspec.Struct):
    """`matched_stop`: the client's stop text or the token id that ended the answer; null where the length did."""

    index: int
    message: Message
    finish_reason: StopReason | None
    matched_stop: int | str | None
    logprobs: ChatLogprobs | None = None


class TextChoice(msgspec.Struct):
    index: int
    text: str
    finish_reason: StopReason | None = None
    logprobs: TextLogprobs | None = None
    matched_stop: int | str | None | UnsetType = UNSET
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET


class ChatChunk(msgspec.Struct, tag_field="object", tag="chat.completion.chunk"):
    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None | UnsetType = UNSET


class ChatCompletion(msgspec.Struct, tag_field="object", tag="chat.completion"):
    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    service_tier: None = None
    system_fingerprint: None = None
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET


class TextCompletion(msgspec.Struct, tag_field="object", tag="text_completion"):
    """The answer of /v1/completions, and a chunk of its stream."""

    id: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None | UnsetType = UNSET


class Model(msgspec.Struct, tag_field="object", tag="model"):
    id: str
    created: int
    root: str
    max_model_len: int | None
    owned_by: str = "g4jax"


class ModelList(msgspec.Struct, tag_field="object", tag="list"):
    data: list[Model]


encode_json = msgspec.json.Encoder().encode
