"""Which values of an `enum` the other keywords of its schema leave."""

import re
from collections.abc import Callable
from typing import Any

from g4jax.guide.schema_keywords import FAMILIES, type_of, types_of
from g4jax.guide.schema_merge import Node


def fitting_values(node: Node) -> list[Any]:
    """By type and by bounds. Objects and arrays are not looked into: they go where any other keyword is about them."""
    types = types_of(node)
    return [value for value in node["enum"].values() if _has_type(value, types) and _is_within(value, node)]


def _is_within(value: Any, node: Node) -> bool:
    kind = type_of(value)
    if kind in ("object", "array"):
        return not any(keyword in node for keyword in FAMILIES[kind])
    checks = {"string": _STRING_CHECKS, "integer": _NUMBER_CHECKS, "number": _NUMBER_CHECKS}.get(kind, {})
    return all(check(value, node[keyword]) for keyword, check in checks.items() if keyword in node)


def _has_type(value: Any, types: list[str]) -> bool:
    kind = type_of(value)
    if kind == "integer" or (kind == "number" and value.is_integer()):
        return "integer" in types or "number" in types
    return kind in types


def _matches(text: str, patterns: list[str]) -> bool:
    try:
        return all(re.search(pattern, text) for pattern in patterns)
    except re.error:
        return True


_STRING_CHECKS: dict[str, Callable[[Any, Any], bool]] = {
    "minLength": lambda text, bound: len(text) >= bound,
    "maxLength": lambda text, bound: len(text) <= bound,
    "pattern": _matches,
}
_NUMBER_CHECKS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": lambda number, bound: number >= bound,
    "exclusiveMinimum": lambda number, bound: number > bound,
    "maximum": lambda number, bound: number <= bound,
    "exclusiveMaximum": lambda number, bound: number < bound,
}
