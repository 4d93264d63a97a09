"""The JSON schemas of tools, as far as reading arguments needs them: which type does a value have?"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any

_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_LOOSE_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)", re.ASCII)
_NULLS = {"null", "None", "nil"}
_BOOLEANS = {"true": "true", "True": "true", "false": "false", "False": "false"}
_MAX_DEPTH = 32
_MAX_DIGITS = 400


class Schema:
    """One place in a JSON schema, or several that are possible (anyOf, oneOf, allOf, $ref are followed).

    `types` are the type names that a value may have here; empty means that nothing is known.
    """

    def __init__(self, nodes: Iterable[Any] = (), root: Any = None):
        self._root = root
        self._nodes = [leaf for node in nodes for leaf in _leaves(node, root, 0)]
        kinds = [_types(node) for node in self._nodes]
        self.types: frozenset[str] = frozenset().union(*kinds) if all(kinds) else frozenset()
        self._properties: dict[str, Schema] = {}

    def property(self, name: str) -> "Schema":
        """Of the value under a key of an object."""
        if name not in self._properties:
            self._properties[name] = self._find_property(name)
        return self._properties[name]

    @cached_property
    def items(self) -> "Schema":
        """Of the elements of an array."""
        found = []
        for node in self._nodes:
            for key in ("items", "prefixItems"):
                inner = node.get(key)
                found += inner if isinstance(inner, list) else [inner] if isinstance(inner, Mapping) else []
        return Schema(found, self._root)

    def _find_property(self, name: str) -> "Schema":
        found = []
        for node in self._nodes:
            properties = node.get("properties")
            if isinstance(properties, Mapping) and name in properties:
                found.append(properties[name])
            elif isinstance(node.get("additionalProperties"), Mapping):
                found.append(node["additionalProperties"])
        return Schema(found, self._root)


ANYTHING = Schema()


def schemas(tools: Sequence[Mapping[str, Any]] | None) -> dict[str, Schema]:
    """The parameters of each tool by its name, from the tools of a chat or of a Responses request."""
    by_name = {}
    for tool in tools or []:
        function = tool.get("function", tool)
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            parameters = function.get("parameters")
            by_name[function["name"]] = Schema([parameters], root=parameters)
    return by_name


def bare_to_json(text: str, types: frozenset[str]) -> str:
    """JSON for a value that stood there without delimiters: typed as JSON, unless the schema wants a string."""
    if text in _NULLS:
        return json.dumps(text) if types and "null" not in types and "string" in types else "null"
    if text in _BOOLEANS and (not types or "boolean" in types):
        return _BOOLEANS[text]
    if _NUMBER.fullmatch(text) and not (types & {"string"} and not types & {"number", "integer"}):
        return _number(text, types)
    return string_to_json(text, types)


def string_to_json(text: str, types: frozenset[str]) -> str:
    """JSON for a value that stood there as a string: a string, unless the schema wants something else."""
    if types and "string" not in types:
        stripped = text.strip()
        if "null" in types and stripped in _NULLS:
            return "null"
        if "boolean" in types and stripped.lower() in _BOOLEANS:
            return stripped.lower()
        if types & {"number", "integer"}:
            if _NUMBER.fullmatch(stripped):
                return _number(stripped, types)
            if _LOOSE_NUMBER.fullmatch(stripped) and len(stripped) < _MAX_DIGITS:
                return _number(format(Decimal(stripped), "f"), types)
        if types & {"array", "object"}:
            return _container(stripped, types) or json.dumps(text, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False)


def _number(text: str, types: frozenset[str]) -> str:
    """The number as it is written, so that no digit is lost; where only integers are allowed, 5.0 becomes 5."""
    if "integer" in types and "number" not in types and not text.lstrip("-").isdigit() and len(text) < _MAX_DIGITS:
        number = Decimal(text)
        if abs(number.adjusted()) < _MAX_DIGITS and number == number.to_integral_value():
            return str(int(number))
    return text


def _container(text: str, types: frozenset[str]) -> str | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    kind = {dict: "object", list: "array"}.get(type(value))
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if kind in types else None


def _leaves(node: Any, root: Any, depth: int) -> list[Mapping[str, Any]]:
    """The node and every alternative in it."""
    if node is True:
        return [{}]
    if not isinstance(node, Mapping) or depth > _MAX_DEPTH:
        return []
    inner = [_resolve(node["$ref"], root)] if "$ref" in node else []
    for key in ("anyOf", "oneOf", "allOf"):
        inner += node[key] if isinstance(node.get(key), list) else []
    if not inner:
        return [node]
    own = [node] if "type" in node or "properties" in node else []
    return own + [leaf for item in inner for leaf in _leaves(item, root, depth + 1)]


def _resolve(reference: Any, root: Any) -> Any:
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    for step in reference[1:].split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        if step:
            root = root.get(step) if isinstance(root, Mapping) else None
    return root


def _types(node: Mapping[str, Any]) -> frozenset[str]:
    declared = node.get("type")
    names = [declared] if isinstance(declared, str) else declared if isinstance(declared, list) else []
    types = {name.lower() for name in names if isinstance(name, str)}
    values = node["enum"] if isinstance(node.get("enum"), list) else [node["const"]] if "const" in node else []
    if not types:
        types = {_type_of(value) for value in values}
    if not types and ("properties" in node or "items" in node):
        types = {"object" if "properties" in node else "array"}
    return frozenset(types | {"null"} if types and node.get("nullable") is True else types)


def _type_of(value: Any) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", list: "array"}
    return kinds.get(type(value), "null")
