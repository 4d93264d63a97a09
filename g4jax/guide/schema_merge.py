"""Two sets of JSON Schema keywords that must both hold, as one."""

import json
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

from g4jax.guide.errors import GrammarError

Node = dict[str, Any]
"""Keywords of one schema, without references and anyOf and its like. `type`, `pattern` and `format` are lists, `enum`
is as `by_json` makes it, `const` is an enum of one, `closed` stands for unevaluatedProperties: false."""


def merge(first: Node, second: Node) -> Node | None:
    """None where no value can fit both."""
    node = {**first, **second}
    for key in first.keys() & second.keys() & _COMBINE.keys():
        node[key] = _COMBINE[key](first[key], second[key])
    node |= _object_keywords(first, second) | _array_keywords(first, second)
    return None if node.get("type") == [] or node.get("enum") == {} else node


def both(first: Any, second: Any) -> Any:
    """The schema of values that fit two schemas."""
    if first is False or second is False:
        return False
    if first is True or first == {} or first is second:
        return second
    return first if second is True or second == {} else {"allOf": [first, second]}


def property_schema(node: Node, name: str) -> Any:
    return node.get("properties", {}).get(name, node.get("additionalProperties", True))


def by_json(values: Iterable[Any]) -> dict[str, Any]:
    """Values under what they are in JSON, where true is not 1."""
    return {json.dumps(value, sort_keys=True): value for value in values}


def _object_keywords(first: Node, second: Node) -> Node:
    if not {"properties", "additionalProperties"} & (first.keys() | second.keys()):
        return {}
    names = dict.fromkeys([*first.get("properties", {}), *second.get("properties", {})])
    keywords: Node = {
        "properties": {name: both(property_schema(first, name), property_schema(second, name)) for name in names}
    }
    extras = [node["additionalProperties"] for node in (first, second) if "additionalProperties" in node]
    return keywords | ({"additionalProperties": reduce(both, extras)} if extras else {})


def _array_keywords(first: Node, second: Node) -> Node:
    keywords: Node = {}
    length = max(len(first.get("prefixItems", ())), len(second.get("prefixItems", ())))
    if length:
        keywords["prefixItems"] = [both(_item(first, i), _item(second, i)) for i in range(length)]
    if "items" in first and "items" in second:
        keywords["items"] = both(first["items"], second["items"])
    return keywords


def _item(node: Node, index: int) -> Any:
    prefix = node.get("prefixItems", ())
    return prefix[index] if index < len(prefix) else node.get("items", True)


def _common_types(first: list[str], second: list[str]) -> list[str]:
    """Every integer is a number."""
    narrowed = [("number", "integer"), ("integer", "number")]
    return [
        "integer" if kind == "number" and kind not in second else kind
        for kind in first
        if kind in second or any(kind == a and b in second for a, b in narrowed)
    ]


def _common_values(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in first.items() if key in second}


def _multiple(first: int | float, second: int | float) -> int | float:
    if first != second:
        raise GrammarError(f"multipleOf: {first} and {second} at the same place are not supported")
    return first


def _union(first: Iterable[Any], second: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys([*first, *second]))


_COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "type": _common_types,
    "enum": _common_values,
    "multipleOf": _multiple,
    **dict.fromkeys(("pattern", "format", "required"), _union),
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}
