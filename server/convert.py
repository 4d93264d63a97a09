"""Request bodies -> what the engine takes."""

import re
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from g4jax.guide.spec import GuideSpec
from g4jax.sample.params import InvalidParameter, SamplingParams
from server.conversation_schemas import ContentPart, Message, PastToolCall, TextPart
from server.errors import CONTEXT_EXCEEDED, invalid, unsupported
from server.media import media_kind
from server.messages import Add, MediaData
from server.model import ModelInfo
from server.schemas import ChatRequest, CompletionRequest, GenerationBody

DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's default for /v1/completions; a chat may fill the context."""

MEDIA_ROLES = ("user", "tool")

OWN_TEMPLATE_VARIABLES = {"messages", "tools", "add_generation_prompt", "continue_final_message"}

_WHOLE_NUMBER = re.compile(r"-?\d{1,19}", re.ASCII)


def sampling_params(body: GenerationBody, model: ModelInfo, max_tokens: int | None) -> SamplingParams:
    """The sampling of a request; what it does not say comes from the checkpoint.

    Of its stop texts the engine hears nothing: they are found where there is text, in this process.
    """
    defaults = model.defaults
    check_token_ids("stop_token_ids", body.stop_token_ids or [], model.vocab_size)
    try:
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=_or(body.temperature, defaults.temperature),
            top_k=_or(body.top_k, defaults.top_k),
            top_p=_or(body.top_p, defaults.top_p),
            min_p=_or(body.min_p, defaults.min_p),
            repetition_penalty=_or(body.repetition_penalty, defaults.repetition_penalty),
            presence_penalty=_or(body.presence_penalty, 0.0),
            frequency_penalty=_or(body.frequency_penalty, 0.0),
            seed=body.seed,
            stop_token_ids=tuple(body.stop_token_ids or ()),
            ignore_eos=bool(body.ignore_eos),
            min_tokens=body.min_tokens or 0,
            logprobs=body.num_logprobs,
            prompt_logprobs=body.num_prompt_logprobs,
            logit_bias=_logit_bias(body.logit_bias or {}, model.vocab_size),
        )
    except InvalidParameter as error:
        raise invalid(error.field, error.message) from None


def engine_requests(
    request_id: str,
    prompts: Sequence[list[int]],
    params: SamplingParams,
    n: int,
    model: ModelInfo,
    *,
    guides: Sequence[GuideSpec | None] = (),
    media: Sequence[list[MediaData]] = (),
    cache_salt: str | None = None,
) -> list[Add]:
    """One engine request for each choice, `n` for each prompt in order. With a seed, choice i draws with seed + i.

    guides, media: one for each prompt, or none at all.
    """
    adds = []
    for index in range(len(prompts) * n):
        seed = None if params.seed is None else params.seed + index % n
        own = params if seed == params.seed else replace(params, seed=seed)
        guide = guides[index // n] if guides else None
        placed = media[index // n] if media else []
        stop_ids, salt = sorted(model.stop_ids), cache_salt or ""
        adds.append(Add(f"{request_id}-{index}", prompts[index // n], own, stop_ids, guide, salt, placed))
    return adds


def new_id(prefix: str) -> str:
    return f"{prefix}{uuid.uuid4().hex}"


def check_length(prompt: str, num_prompt: int, limit: str, max_tokens: int | None, max_model_len: int) -> None:
    """400 for what cannot fit the context. `prompt` and `limit` are the names of the two fields."""
    if num_prompt >= max_model_len:
        message = (
            f"has {num_prompt} tokens, but may have at most {max_model_len - 1}: "
            f"the context holds {max_model_len} tokens, prompt and answer together"
        )
        raise invalid(prompt, message, CONTEXT_EXCEEDED)
    if max_tokens is not None and num_prompt + max_tokens > max_model_len:
        message = (
            f"is {max_tokens}, but after the prompt of {num_prompt} tokens "
            f"the context of {max_model_len} tokens has room for {max_model_len - num_prompt}"
        )
        raise invalid(limit, message, CONTEXT_EXCEEDED)


def check_chat_supported(body: ChatRequest, parse_tools: bool) -> None:
    """400 for what this server does not do, rather than an answer that silently ignores it."""
    if body.tools and body.tool_choice != "none" and not parse_tools:
        raise invalid("tools", "this server was started with --tool-call-parser none")


def check_completion_supported(body: CompletionRequest) -> None:
    """As `check_chat_supported`."""
    if body.best_of is not None and body.best_of < (body.n or 1):
        raise invalid("best_of", "must not be below n")
    if body.best_of is not None and body.best_of > (body.n or 1):
        raise unsupported("best_of", "a best_of above n")
    if body.suffix:
        raise unsupported("suffix", "suffix: Gemma 4 is not trained to fill in; it")


def template_messages(body: ChatRequest) -> list[dict[str, Any]]:
    """The messages as the chat template reads them, unset fields left out."""
    return [_message(message, f"messages[{i}]") for i, message in enumerate(body.messages)]


def template_tools(body: ChatRequest) -> list[dict[str, Any]]:
    """The tools in OpenAI's shape. None with tool_choice none: the model then does not hear of them."""
    if body.tool_choice == "none":
        return []
    return [tool.model_dump(exclude_none=True) for tool in body.tools or []]


def template_kwargs(body: ChatRequest) -> dict[str, Any]:
    """`chat_template_kwargs` and how the prompt ends; reasoning_effort sets enable_thinking where they do not."""
    kwargs = dict(body.chat_template_kwargs or {})
    for name in OWN_TEMPLATE_VARIABLES & kwargs.keys():
        raise invalid("chat_template_kwargs", f"may not set {name}, which has its own place in the request")
    if body.reasoning_effort is not None:
        kwargs.setdefault("enable_thinking", body.reasoning_effort != "none")
    if not isinstance(kwargs.setdefault("enable_thinking", False), bool):
        raise invalid("chat_template_kwargs.enable_thinking", "must be true or false")
    if body.continue_final_message:
        kwargs["continue_final_message"] = True
    elif body.add_generation_prompt is False:
        kwargs["add_generation_prompt"] = False
    return kwargs


def prompt_texts_or_ids(body: CompletionRequest, model: ModelInfo) -> list[str | list[int]]:
    """The prompts, each a text or token ids; 400 for an empty one and for ids that are none."""
    raw = body.prompt
    prompts: list[Any] = [raw] if isinstance(raw, str) or isinstance(raw[0], int) else list(raw)
    for prompt in prompts:
        if not prompt:
            raise invalid("prompt", "must not be empty")
        if not isinstance(prompt, str):
            check_token_ids("prompt", prompt, model.vocab_size)
    return prompts


def _logit_bias(bias: dict[str, Any], vocab_size: int) -> tuple[tuple[int, float], ...]:
    """(token id, value) pairs; 400 that lists every key at fault."""
    strange = [key for key in bias if not _WHOLE_NUMBER.fullmatch(key)]
    if strange:
        raise invalid("logit_bias", f"keys must be token ids, got {_listed(strange)}")
    outside = [key for key in bias if not 0 <= int(key) < vocab_size]
    if outside:
        raise invalid("logit_bias", f"token ids {_listed(outside)} are out of the vocabulary of {vocab_size}")
    for key, value in bias.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid("logit_bias", f"the value of {key} must be a number, got {str(value)[:80]!r}")
    return tuple({int(key): float(value) for key, value in bias.items()}.items())


def _listed(keys: list[str]) -> str:
    return ", ".join(repr(key[:40]) for key in keys)


def check_token_ids(param: str, ids: Sequence[int], vocab_size: int) -> None:
    for token in ids:
        if token >= vocab_size:
            raise invalid(param, f"token id {token} is out of the vocabulary of {vocab_size}")


def _message(message: Message, param: str) -> dict[str, Any]:
    out: dict[str, Any] = {"role": message.role, "content": _content(message, param)}
    # One thought under two names; the template would render both.
    reasoning = message.reasoning_content if message.reasoning_content is not None else message.reasoning
    calls = [_call(call) for call in message.tool_calls or []]
    optional = {
        "reasoning_content": reasoning,
        "tool_calls": calls or None,
        "tool_call_id": message.tool_call_id,
        "name": message.name,
    }
    return out | {name: value for name, value in optional.items() if value is not None}


def _content(message: Message, param: str) -> str | dict[str, Any] | list[dict[str, str]] | None:
    if message.content is None or isinstance(message.content, str | dict):
        return message.content
    return [_part(part, message.role, f"{param}.content[{i}]") for i, part in enumerate(message.content)]


def _part(part: ContentPart, role: str, param: str) -> dict[str, str]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if (kind := media_kind(part)) is None:
        raise unsupported(f"{param}.type", f"content of type {part.type!r}")
    if role not in MEDIA_ROLES:
        raise invalid(f"{param}.type", f"a message of role {role} cannot hold {part.type!r}, only user and tool can")
    return {"type": kind}


def _call(call: PastToolCall) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return {"type": "function", "function": function} | ({"id": call.id} if call.id else {})


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
