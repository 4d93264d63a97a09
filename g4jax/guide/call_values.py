"""JSON schemas as grammars for values in Gemma's notation: bare keys, strings between two delimiter tokens."""

from typing import Any

from g4jax.guide.call_scalars import CallScalars, in_order
from g4jax.guide.errors import GrammarError
from g4jax.guide.lark_rules import LarkRules
from g4jax.guide.schema_fit import fitting_values
from g4jax.guide.schema_keywords import types_of
from g4jax.guide.schema_merge import Node, property_schema
from g4jax.guide.schema_nodes import SchemaNodes

MAX_DEPTH = 32
"""Objects and arrays in one another. Each level has its own rules, so that a schema that refers to itself ends."""

_MAX_ITEMS = 10_000
_MAX_PATH = 80


class CallValues:
    """Writes rules for the schemas of one document."""

    def __init__(self, rules: LarkRules, scalars: CallScalars, nodes: SchemaNodes):
        self._rules = rules
        self._scalars = scalars
        self._nodes = nodes
        self._known: dict[tuple[int, int], str | None] = {}  # by id() of what `nodes` keeps, and depth
        self.reached_limit = False

    def value(self, schema: Any, where: str, depth: int) -> str | None:
        """The rule of what fits the schema; None if nothing does. `depth` counts the objects and arrays around it."""
        nodes = self._nodes.alternatives(schema, where)
        key = (id(nodes), depth)
        if key not in self._known:
            options = [option for node in nodes for option in self._node(node, where, depth)]
            self._known[key] = self._rules.rule(" | ".join(dict.fromkeys(options))) if options else None
        return self._known[key]

    def object(self, node: Node, where: str, depth: int) -> str | None:
        """Its keys in the order of the chat template. None if a required property can have no value."""
        if depth >= MAX_DEPTH:
            self.reached_limit = True
            return None
        required = set(node.get("required", ()))
        names = in_order(dict.fromkeys([*node.get("properties", ()), *node.get("required", ())]))
        self._nodes.spend(1 + len(names), where)
        pairs: list[tuple[str, str]] = []
        for name in names:
            rule = self.value(property_schema(node, name), _inside(where, name), depth + 1)
            if rule is not None:
                pairs.append((name, rule))
            elif name in required:
                return None
        free = self._free_pair(node, where, depth)
        _check_count(node, pairs, free, where)
        return self._members(pairs, required, free, node)

    def _node(self, node: Node, where: str, depth: int) -> list[str]:
        if "enum" in node:
            return self._scalars.constants(fitting_values(node), where)
        options = [self._of_type(kind, node, where, depth) for kind in types_of(node)]
        return [option for option in options if option is not None]

    def _of_type(self, kind: str, node: Node, where: str, depth: int) -> str | None:
        match kind:
            case "string":
                return self._scalars.string(node, where)
            case "number" | "integer":
                return self._scalars.number(kind, node, where)
            case "boolean":
                return '"true" | "false"'
            case "null":
                return '"null"'
            case "array":
                return self._array(node, where, depth)
            case _:
                return self.object(node, where, depth)

    def _free_pair(self, node: Node, where: str, depth: int) -> str | None:
        """A property that is not declared: where the schema asks for it, or says nothing at all about properties."""
        declared = [*node.get("properties", ()), *node.get("required", ())]
        extra = node.get("additionalProperties", not declared and not node.get("closed"))
        rule = self.value(extra, _inside(where, "*"), depth + 1) if extra is not False else None
        return None if rule is None else self._rules.rule(f"{self._scalars.free_key(declared)} {rule}")

    def _members(self, pairs: list[tuple[str, str]], required: set[str], free: str | None, node: Node) -> str | None:
        """Braces and what stands between them. Written from the end: a pair knows what may follow it."""
        least, most = node.get("minProperties", 0), node.get("maxProperties")
        following = self._rules.rule(_repeat(f'"," {free}', 0, None if most is None else most - 1)) if free else ""
        first = [f"{free} {following}"] if free and most != 0 else []
        for name, rule in reversed(pairs):
            here, later = (f"{self._scalars.key(name, comma)} {rule} " for comma in ("", ","))
            if name in required:
                first = [here + following]
                following = self._rules.rule(later + following)
            else:
                first = [here + following, *first]
                following = self._rules.rule(f"({later})? {following}")
        is_optional = least == 0 and not required
        if not first:
            return '"{" "}"' if is_optional else None
        return f'"{{" ({" | ".join(first)}){"?" if is_optional else ""} "}}"'

    def _array(self, node: Node, where: str, depth: int) -> str | None:
        if depth >= MAX_DEPTH:
            self.reached_limit = True
            return None
        least, most = node.get("minItems", 0), node.get("maxItems")
        if least > _MAX_ITEMS:
            raise GrammarError(f"{where}: minItems is at most {_MAX_ITEMS}")
        prefix = node.get("prefixItems", [])[:most]
        rules = [self.value(schema, _inside(where, "[]"), depth + 1) for schema in prefix]
        rules = rules[: rules.index(None)] if None in rules else rules
        is_cut = len(rules) < len(prefix) or most == len(rules)
        items = node.get("items", not prefix or least > len(prefix))
        rest = None if is_cut else self.value(items, _inside(where, "[]"), depth + 1)
        if least > (len(rules) if rest is None else _MAX_ITEMS if most is None else most):
            return None
        return f'"[" {self._elements(rules, rest, least, most)} "]"'

    def _elements(self, rules: list[str | None], rest: str | None, least: int, most: int | None) -> str:
        """The elements with their commas, written from the end."""
        count = len(rules)
        bound = None if most is None else min(most, _MAX_ITEMS) - count
        if rest is None:
            body = ""
        elif count:
            body = _repeat(f'"," {rest}', max(least - count, 0), bound)
        else:
            more = _repeat(f'"," {rest}', max(least - 1, 0), None if bound is None else bound - 1)
            body = f"{rest} {more}" if least else f"({rest} {more})?"
        for index in range(count - 1, -1, -1):
            comma = '","' if index else ""
            body = f"{comma} {rules[index]} {body}"
            body = body if index < least else f"({body})?"
        return body


def _inside(where: str, name: str) -> str:
    return f"{where}.{name}"[:_MAX_PATH]


def _repeat(body: str, least: int, most: int | None) -> str:
    if most is not None and most <= 0:
        return ""
    return f"({body}){{{least},{'' if most is None else most}}}"


def _check_count(node: Node, pairs: list[tuple[str, str]], free: str | None, where: str) -> None:
    """GrammarError for numbers of properties that the rules cannot count."""
    if node.get("minProperties", 0) > max(len(node.get("required", ())), 1):
        raise GrammarError(f"{where}: minProperties above 1 is not supported; name the properties under required")
    if pairs and "maxProperties" in node and (free or node["maxProperties"] < len(pairs)):
        raise GrammarError(f"{where}: maxProperties is not supported where properties are named; leave it out")
