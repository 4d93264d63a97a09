"""A JSON schema as a list of alternatives without references and without anyOf, oneOf, allOf."""

import itertools
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from g4jax.guide.errors import GrammarError
from g4jax.guide.schema_exclusion import excludes
from g4jax.guide.schema_keywords import own_node
from g4jax.guide.schema_merge import Node, merge

_MAX_NESTING = 64
_MAX_ALTERNATIVES = 256
_MAX_WORK = 15_000
_ANYTHING: list[Node] = [{}]
_NOTHING: list[Node] = []


class SchemaNodes:
    """Reads the schemas of one document; references are looked up in `root`.

    Errors: GrammarError for what is no schema, for keywords that a grammar cannot express, and for references that
    lead nowhere or in a circle.
    """

    def __init__(self, root: Any):
        self._root = root
        self._known: dict[int, tuple[Any, list[Node]]] = {}  # by id(); the schema stands there so that the id stays
        self._open: set[int] = set()  # those that are being read
        self._work = 0

    def alternatives(self, schema: Any, where: str) -> list[Node]:
        """Any of them may hold; none where nothing fits. `where` is for errors."""
        if isinstance(schema, bool):
            return _ANYTHING if schema else _NOTHING
        if not isinstance(schema, Mapping):
            raise GrammarError(f"{where}: a schema must be an object, true or false")
        key = id(schema)
        if key not in self._known:
            if key in self._open or len(self._open) >= _MAX_NESTING:
                raise GrammarError(f"{where}: $ref, anyOf and their like lead in a circle, or are nested too deeply")
            self._open.add(key)
            self._known[key] = (schema, self._read(schema, where))
            self._open.remove(key)
        return self._known[key][1]

    def _read(self, schema: Mapping[str, Any], where: str) -> list[Node]:
        found = [own_node(schema, where)]
        if "$ref" in schema:
            found = self._combine(found, self.alternatives(self._resolve(schema["$ref"], where), where), where)
        for part in schema.get("allOf", ()):
            found = self._combine(found, self.alternatives(part, where), where)
        if "anyOf" in schema:
            options = {id(node): node for part in schema["anyOf"] for node in self.alternatives(part, where)}
            self.spend(len(options), where)
            found = self._combine(found, list(options.values()), where)
        if "oneOf" in schema:
            found = self._one_of(found, schema, where)
        return [*found, {"type": ["null"]}] if schema.get("nullable") is True else found

    def _one_of(self, base: list[Node], schema: Mapping[str, Any], where: str) -> list[Node]:
        """As anyOf, if it is certain that what is written for one option fits no other."""
        tag = schema.get("discriminator", {}).get("propertyName")
        if tag:
            base = self._combine(base, [{"required": [tag]}], where)
        options = [self._combine(base, self.alternatives(part, where), where) for part in schema["oneOf"]]
        for one, other in itertools.permutations(options, 2) if not _are_distinct_values(options) else ():
            for written, node in itertools.product(one, other):
                self.spend(1 + len(written.get("required", ())), where)
                if not excludes(node, written):
                    raise GrammarError(f"{where}: oneOf: a value may fit several of its options; use anyOf")
        return list(itertools.chain(*options))

    def spend(self, units: int, where: str) -> None:
        """Counts the work, which a small schema can make very large. GrammarError when it is too much."""
        self._work += units
        if self._work > _MAX_WORK:
            raise GrammarError(f"{where}: the schema has too many combinations; make it simpler")

    def _combine(self, first: list[Node], second: list[Node], where: str) -> list[Node]:
        """All that fits one of each."""
        if first == _ANYTHING:
            return second
        if len(first) * len(second) > _MAX_ALTERNATIVES:
            raise GrammarError(f"{where}: anyOf and its like make more than {_MAX_ALTERNATIVES} alternatives")
        found = []
        for one, other in itertools.product(first, second):
            self.spend(1 + len(one.get("properties", ())) + len(other.get("properties", ())), where)
            merged = merge(one, other)
            found += [] if merged is None else [merged]
        return found

    def _resolve(self, reference: str, where: str) -> Any:
        place = self._root
        if not reference.startswith("#"):
            raise GrammarError(f"{where}: $ref {reference!r} leads out of the schema; put it under $defs")
        for step in filter(None, unquote(reference[1:]).split("/")):
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(place, list) and step.isdecimal() and int(step) < len(place):
                place = place[int(step)]
            elif isinstance(place, Mapping) and step in place:
                place = place[step]
            else:
                raise GrammarError(f"{where}: $ref {reference!r} leads nowhere")
        return place


def _are_distinct_values(options: list[list[Node]]) -> bool:
    """All of them are constants, and no two alike: a list of choices, which can be long."""
    values = [key for node in itertools.chain(*options) for key in node.get("enum", (None, None))]
    return len(values) == len(set(values))
