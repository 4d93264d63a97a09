"""The keywords of JSON Schema that a grammar can follow, and what is wrong with the others."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from g4jax.guide.errors import GrammarError
from g4jax.guide.schema_merge import Node, by_json

MAX_SCHEMA = 1 << 18
"""Characters of a schema."""

MAX_PROPERTIES = 1000
"""Of one object. The time to compile them grows with the square."""

TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
NUMERIC_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf")

FAMILIES: dict[str, tuple[str, ...]] = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": NUMERIC_BOUNDS,
}
"""The keywords that speak about values of one type."""

_UNSUPPORTED: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("not", "if", "contains", "unevaluatedItems", "$dynamicRef"), lambda value: True),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "dependencies", "patternProperties"), bool),
    "uniqueItems": bool,
    "unevaluatedProperties": lambda value: value is not False,
    "propertyNames": lambda value: value not in (True, {}, {"type": "string"}),
}
"""What cannot be expressed, and for which values; keywords unknown here constrain nothing."""


def own_node(schema: Mapping[str, Any], where: str) -> Node:
    """The keywords of this schema itself, without what it refers to. GrammarError for those that make no sense."""
    for keyword, refused in _UNSUPPORTED.items():
        if keyword in schema and refused(schema[keyword]):
            raise GrammarError(f"{where}: {keyword} is not supported; leave it out")
    for keyword, (fits, what) in _SHAPES.items():
        if keyword in schema and not fits(schema[keyword]):
            raise GrammarError(f"{where}: {keyword} must be {what}")
    node = {keyword: schema[keyword] for keyword in _KEPT if keyword in schema}
    if "type" in schema:
        node["type"] = _types(schema["type"], where)
    if "enum" in schema:
        node["enum"] = by_json(schema["enum"])
    if "const" in schema:
        const = by_json([schema["const"]])
        node["enum"] = const if const.keys() <= node.get("enum", const).keys() else {}
    for keyword in ("pattern", "format"):
        if keyword in schema:
            node[keyword] = [schema[keyword]]
    if isinstance(schema.get("items"), list):  # how older drafts write prefixItems
        node["prefixItems"] = node.pop("items")
        node |= {"items": schema["additionalItems"]} if "additionalItems" in schema else {}
    if schema.get("unevaluatedProperties") is False:
        node["closed"] = True
    return node


def check_size(schema: Any, where: str) -> None:
    """GrammarError for a schema with too much text, or nested without end."""
    try:
        size = len(json.dumps(schema))
    except RecursionError:
        raise GrammarError(f"{where}: the schema is nested too deeply") from None
    if size > MAX_SCHEMA:
        raise GrammarError(f"{where}: the schema has {size} characters, {MAX_SCHEMA} are allowed")


def types_of(node: Node) -> list[str]:
    """The types that a value may have here. Where none is named, the keywords tell."""
    if "type" in node:
        return node["type"]
    if "enum" in node:
        return list(dict.fromkeys(map(type_of, node["enum"].values())))
    implied = [kind for kind, keywords in FAMILIES.items() if any(keyword in node for keyword in keywords)]
    return implied or [kind for kind in TYPES if kind != "integer"]


def type_of(value: Any) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "null")


def _types(declared: Any, where: str) -> list[str]:
    names = [declared] if isinstance(declared, str) else declared
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise GrammarError(f"{where}: type must be a string or a list of strings")
    lowered = list(dict.fromkeys(name.lower() for name in names))
    for name in lowered:
        if name not in TYPES:
            raise GrammarError(f"{where}: there is no type {name!r}; types are {', '.join(TYPES)}")
    return lowered


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_filled(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _is_schema(value: Any) -> bool:
    return isinstance(value, Mapping | bool)


_SHAPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("anyOf", "oneOf", "allOf"), (_is_filled, "a list, not empty")),
    **dict.fromkeys(("pattern", "format", "$ref"), (lambda value: isinstance(value, str), "a string")),
    **dict.fromkeys(NUMERIC_BOUNDS, (_is_number, "a number")),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
        (_is_count, "a whole number, not negative"),
    ),
    "enum": (_is_filled, "a list, not empty"),
    "prefixItems": (lambda value: isinstance(value, list), "a list"),
    "properties": (
        lambda value: isinstance(value, Mapping) and len(value) <= MAX_PROPERTIES,
        f"an object, with at most {MAX_PROPERTIES} names",
    ),
    "required": (_is_strings, "a list of strings"),
    "items": (lambda value: _is_schema(value) or isinstance(value, list), "a schema"),
    "additionalProperties": (_is_schema, "a schema"),
    "additionalItems": (_is_schema, "a schema"),
    "discriminator": (lambda value: isinstance(value, Mapping), "an object"),
}

_KEPT = tuple(keyword for keywords in FAMILIES.values() for keyword in keywords)
