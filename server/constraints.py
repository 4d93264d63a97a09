"""What a request demands of the form of its answer, as a guide for the engine.

OpenAI's rules where there are any: a call that is forced comes in place of what response_format demands, and where
the model may choose, a call may come in place of the text that is demanded. A named function is called once. The other
fields exclude each other, and a forced call. Calls that the model chooses to make are held to the schemas only if a
tool is strict; that there is at most one of them needs no guide, for `ChatOutput` ends the answer behind it.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from g4jax import guide
from g4jax.chat.output import ends_in_thought
from g4jax.guide.either import either
from g4jax.guide.errors import GrammarError
from g4jax.guide.spec import GuideSpec
from server.body import Body
from server.constraint_schemas import ConstraintBody, JsonSchema
from server.errors import invalid
from server.schemas import ChatRequest, CompletionRequest, GenerationBody
from server.serving import Serving

Kind = Literal["json_object", "json_schema", "regex", "choice", "grammar"]

_FIELDS: tuple[tuple[str, Kind], ...] = (
    ("regex", "regex"),
    ("guided_regex", "regex"),
    ("choice", "choice"),
    ("guided_choice", "choice"),
    ("ebnf", "grammar"),
    ("grammar", "grammar"),
    ("guided_grammar", "grammar"),
    ("json_schema", "json_schema"),
    ("guided_json", "json_schema"),
)
_STRUCTURED_OUTPUTS: tuple[tuple[str, Kind], ...] = (
    ("regex", "regex"),
    ("choice", "choice"),
    ("grammar", "grammar"),
    ("json_", "json_schema"),
    ("json_object", "json_object"),
)


@dataclass(frozen=True)
class Constraint:
    """What `field` of a request demands of the text."""

    field: str
    kind: Kind
    value: Any = None

    def grammar(self) -> str:
        """Raises GrammarError."""
        match self.kind:
            case "json_object":
                return guide.json_object()
            case "json_schema":
                return guide.json_schema(self.value)
            case "regex":
                return guide.regex(self.value)
            case "choice":
                return guide.choice(self.value)
            case "grammar":
                return guide.lark(self.value)


async def chat_guide(
    serving: Serving, body: ChatRequest, tools: Sequence[dict[str, Any]], prompt_ids: Sequence[int]
) -> GuideSpec | None:
    """The guide of a chat, None where the answer is free; ApiError for a demand that cannot be met.

    `tools` are those that the model hears of.
    """
    text = _constraint(body)
    if body.forces_call and text is not None and not text.field.startswith("response_format"):
        raise invalid(text.field, "excludes a tool_choice that forces a call")
    text = None if body.forces_call else text
    grammar = None if text is None else await _checked(serving, text.field, text.grammar)
    if body.forces_call or (tools and text is not None) or any(tool["function"].get("strict") for tool in tools):
        grammar = await _checked(serving, "tools", lambda: _call_grammar(serving, body, tools, grammar))
    thinks = serving.chat.tokenizer.control.think in prompt_ids and not body.continue_final_message
    return _guide(serving, body, grammar, prompt_ids, may_think=thinks)


async def completion_guides(
    serving: Serving, body: CompletionRequest, prompts: Sequence[Sequence[int]]
) -> list[GuideSpec | None]:
    """As `chat_guide`, one for each prompt."""
    text = _constraint(body)
    grammar = None if text is None else await _checked(serving, text.field, text.grammar)
    return [_guide(serving, body, grammar, prompt_ids, may_think=False) for prompt_ids in prompts]


def _guide(
    serving: Serving, body: GenerationBody, grammar: str | None, prompt_ids: Sequence[int], *, may_think: bool
) -> GuideSpec | None:
    in_thought = ends_in_thought(serving.chat.tokenizer, prompt_ids)
    may_think = may_think or in_thought
    budget = body.thinking_token_budget if may_think and body.thinking_token_budget != -1 else None
    if grammar is None and budget is None:
        return None
    return GuideSpec(grammar, may_think, in_thought, budget)


async def _checked(serving: Serving, field: str, make: Callable[[], str]) -> str:
    """The grammar, once it is known to be one; in a thread, since a large schema takes a while."""

    def checked() -> str:
        grammar = make()
        serving.guides.check(GuideSpec(grammar))
        return grammar

    try:
        return await asyncio.to_thread(checked)
    except GrammarError as error:
        raise invalid(field, str(error)) from None


def _call_grammar(serving: Serving, body: ChatRequest, tools: Sequence[dict[str, Any]], text: str | None) -> str:
    """Calls by the schemas of the tools: alone if they are forced, else beside any text, or in place of the `text`."""
    calls = guide.tool_calls(
        tools,
        name=body.named_tool,
        required=body.forces_call or text is not None,
        parallel=body.parallel_tool_calls is not False,
        control=serving.chat.tokenizer.control,
    )
    return calls if text is None else either(text, calls)


def _constraint(body: ConstraintBody) -> Constraint | None:
    """400 for two of them, and for JSON that is none."""
    found = list(_constraints(body))
    if len(found) > 1:
        raise invalid(found[1].field, f"excludes {found[0].field}: give one of the two")
    return found[0] if found else None


def _constraints(body: ConstraintBody) -> Iterator[Constraint]:
    form = body.response_format
    if form is not None and form.type == "json_object":
        yield Constraint("response_format", "json_object")
    if form is not None and form.json_schema is not None:
        yield Constraint("response_format.json_schema.schema", "json_schema", form.json_schema.schema_)
    yield from _given(body, _FIELDS)
    if body.structured_outputs is not None:
        for inner in _given(body.structured_outputs, _STRUCTURED_OUTPUTS):
            yield replace(inner, field=f"structured_outputs.{inner.field}")


def _given(body: Body, fields: Sequence[tuple[str, Kind]]) -> Iterator[Constraint]:
    for attribute, kind in fields:
        value = getattr(body, attribute)
        if value is not None and value is not False:
            field = attribute.rstrip("_")
            yield Constraint(field, kind, _schema(field, value) if kind == "json_schema" else value)


def _schema(field: str, value: JsonSchema) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise invalid(field, f"is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise invalid(field, "must be a JSON schema, an object")
    return value
