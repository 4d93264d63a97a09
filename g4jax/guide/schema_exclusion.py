"""Whether what is written for one option of a oneOf can fit another one as well."""

from collections.abc import Mapping, Sequence
from typing import Any

from g4jax.guide.schema_keywords import TYPES, own_node, types_of
from g4jax.guide.schema_merge import Node, property_schema

_REFERRING = ("$ref", "anyOf", "oneOf", "allOf", "nullable")


def excludes(node: Node, written: Node) -> bool:
    """Certainly no value that a grammar writes for `written` fits `node`. False where that is not plain to see."""
    possible = types_of(node) if "type" in node or "enum" in node else TYPES
    common = [kind for kind in types_of(written) if _holds(kind, possible)]
    return all(_excludes_type(node, written, kind) for kind in common)


def _excludes_type(node: Node, written: Node, kind: str) -> bool:
    if "enum" in written:
        return "enum" in node and node["enum"].keys().isdisjoint(written["enum"])
    return kind == "object" and _excludes_objects(node, written)


def _excludes_objects(node: Node, written: Node) -> bool:
    """By a property that one has and the other must not have, or by one whose values differ."""
    declared, always = written.get("properties", {}), set(written.get("required", ()))
    is_closed = written.get("additionalProperties", not declared and not always) is False
    if is_closed and any(name not in declared and name not in always for name in node.get("required", [])):
        return True
    return any(_excludes_values(property_schema(node, name), property_schema(written, name)) for name in always)


def _excludes_values(schema: Any, written: Any) -> bool:
    if schema is False or written is False:
        return True
    if not isinstance(schema, Mapping) or not isinstance(written, Mapping):
        return False
    if any(keyword in part for part in (schema, written) for keyword in _REFERRING):
        return False
    return excludes(own_node(schema, "oneOf"), own_node(written, "oneOf"))


def _holds(kind: str, kinds: Sequence[str]) -> bool:
    """A number that is written may be an integer, and every integer is a number."""
    return kind in kinds or (kind == "integer" and "number" in kinds) or (kind == "number" and "integer" in kinds)
