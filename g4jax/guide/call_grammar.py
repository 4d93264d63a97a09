"""The grammar of tool calls in Gemma's own notation: every call parses, and its arguments fit the tool's schema."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from g4jax.chat.tokenizer import ControlIds
from g4jax.guide.call_scalars import CallScalars
from g4jax.guide.call_values import MAX_DEPTH, CallValues
from g4jax.guide.errors import GrammarError
from g4jax.guide.lark_rules import LarkRules, literal
from g4jax.guide.schema_keywords import check_size, types_of
from g4jax.guide.schema_nodes import SchemaNodes

_NAME = re.compile(r"\w[\w.:\-]*")


def tool_calls(
    tools: Sequence[Mapping[str, Any]],
    *,
    name: str | None = None,
    required: bool = True,
    parallel: bool = True,
    control: ControlIds,
) -> str:
    """Calls and nothing else: one or more, or exactly one where not `parallel`.

    tools: of a chat or of a Responses request. name: the tool that must be called, once.
    required=False: text may come before the calls or in their place; only the form of calls is certain then.

    Errors: GrammarError for schemas that the grammar cannot hold answers to.
    """
    if control.call_open is None or control.call_close is None or control.quote is None:
        raise GrammarError("the model's tokenizer has no tokens for tool calls")
    parameters = _parameters(tools)
    if name is not None and name not in parameters:
        raise GrammarError(f"tool_choice: there is no tool {name!r}")
    rules = LarkRules()
    scalars = CallScalars(rules, control.quote)
    chosen = [name] if name is not None else list(parameters)
    try:
        bodies = [f"{literal(f'call:{tool}')} {_arguments(tool, parameters[tool], rules, scalars)}" for tool in chosen]
    except RecursionError:
        raise GrammarError("tools: a schema is nested too deeply") from None
    call = rules.rule(f"<[{control.call_open}]> ({' | '.join(bodies)}) <[{control.call_close}]>")
    is_single = name is not None or not parallel
    if required or name is not None:
        return rules.text(call if is_single else f"{call}+")
    return rules.text(f"/(?s:.)+/? {call}{'?' if is_single else '*'}")


def _parameters(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The schema of each tool's arguments."""
    parameters: dict[str, Any] = {}
    for tool in tools:
        function = tool.get("function", tool)
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise GrammarError(f"tools: the name {name!r} must be of letters, digits, '_', '-', '.' and ':'")
        parameters[name] = function.get("parameters") or {"properties": {}}
    if not parameters:
        raise GrammarError("tools: a call needs at least one tool")
    return parameters


def _arguments(tool: str, schema: Any, rules: LarkRules, scalars: CallScalars) -> str:
    """A tool whose schema names no properties takes no arguments, unless it asks for additional ones."""
    check_size(schema, tool)
    nodes = SchemaNodes(schema)
    values = CallValues(rules, scalars, nodes)
    options = []
    for node in nodes.alternatives(schema, tool):
        if "object" not in types_of(node):
            raise GrammarError(f"{tool}: the parameters must describe an object")
        closed = {} if node.get("properties") or node.get("required") else {"additionalProperties": False}
        options.append(values.object(closed | node, tool, depth=0))
    bodies = [body for body in options if body is not None]
    if not bodies:
        too_deep = f"they need more than {MAX_DEPTH} levels of nesting"
        reason = too_deep if values.reached_limit else "nothing fits them"
        raise GrammarError(f"{tool}: there can be no arguments for these parameters: {reason}")
    return f"({' | '.join(bodies)})"
