"""A JSON schema as llguidance takes it, and without what would keep it busy for minutes."""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from g4jax.guide.errors import GrammarError
from g4jax.guide.schema_keywords import MAX_PROPERTIES
from g4jax.guide.text_patterns import FORMATS

_MAX_MULTIPLE = 10_000
_MAX_BOUND = (1 << 53) - 1
_LOWER, _UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "unknown")
_DATES = ("date", "date-time")
"""llguidance lets every year have a 29th of February; our own patterns do not."""
_BY_NAME = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
_LISTS = {"anyOf", "oneOf", "allOf", "prefixItems", "items"}
_SINGLE = {"items", "additionalItems", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else"}


def for_llguidance(schema: Any) -> Any:
    """Unknown formats are left out, for they only describe; bounds are drawn in as `usable_bound` does.

    Errors: GrammarError for too many properties in an object, and for multiples that llguidance cannot count with.
    """
    multiples: set[int] = set()
    rewritten = _schema(schema, multiples)
    check_multiples(multiples)
    return rewritten


def usable_bound(keyword: str, value: int | float) -> int | float:
    """llguidance knows no bounds beyond 2^53; those that are farther out are drawn in."""
    if keyword in _LOWER:
        return max(value, -_MAX_BOUND)
    return min(value, _MAX_BOUND) if keyword in _UPPER else value


def significant(multiple: int | float) -> int:
    """Its digits without the zeros at both ends: the number of states in which a reader of multiples can be."""
    return int("".join(map(str, Decimal(repr(multiple)).normalize().as_tuple().digits)))


def check_multiples(multiples: set[int]) -> None:
    """GrammarError if numbers that are all of these at once are too hard to recognize."""
    if math.lcm(*multiples) > _MAX_MULTIPLE:
        raise GrammarError(f"multipleOf: more than {_MAX_MULTIPLE} without its zeros is not supported")


def _schema(schema: Any, multiples: set[int]) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    kept = {key: value for key, value in schema.items() if key != "format" or value in _FORMATS}
    others = kept.get("allOf", [])
    if kept.get("format") in _DATES and isinstance(others, list):
        kept["allOf"] = [*others, {"pattern": f"^(?:{FORMATS[kept.pop('format')]})$"}]
    return {key: _value(key, value, multiples) for key, value in kept.items()}


def _value(key: str, value: Any, multiples: set[int]) -> Any:
    if key in _BY_NAME and isinstance(value, Mapping):
        if key == "properties" and len(value) > MAX_PROPERTIES:
            raise GrammarError(f"an object has {len(value)} properties, {MAX_PROPERTIES} are allowed")
        return {name: _schema(inner, multiples) for name, inner in value.items()}
    if key in _LISTS and isinstance(value, list):
        return [_schema(inner, multiples) for inner in value]
    if key in _SINGLE:
        return _schema(value, multiples)
    if type(value) in (int, float) and math.isfinite(value):
        if key == "multipleOf":
            multiples.add(significant(value))
        return usable_bound(key, value)
    return value
