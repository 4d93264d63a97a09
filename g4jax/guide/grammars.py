"""Grammars for text: JSON, a regex, a choice, or what the client wrote."""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llguidance import LLMatcher
from llguidance.gbnf_to_lark import gbnf_to_lark, is_lark_syntax

from g4jax.guide.errors import GrammarError, short
from g4jax.guide.lark_rules import literal
from g4jax.guide.schema_dialect import for_llguidance
from g4jax.guide.schema_keywords import check_size

MAX_GBNF = 50_000
"""Characters of a grammar in GBNF. The time to convert it can grow with the square."""

_JSON_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
    "lenient": False,
    "coerce_one_of": False,
}
"""On one line, with or without a blank behind commas and colons: white space without end is a trap for a model."""

_INNER_SCHEMA = re.compile(r"%json\s*")
_GBNF_RULE = re.compile(r"(?m)^\s*[\w-]+\s*::=")


def json_object() -> str:
    """Any JSON object."""
    return json_schema({"type": "object"})


def json_schema(schema: Any) -> str:
    """JSON that fits the schema, on one line.

    Errors: GrammarError for a schema that is too large; `Guides.check` tells what llguidance cannot follow.
    """
    if not isinstance(schema, Mapping):
        raise GrammarError("the schema must be an object")
    check_size(schema, "schema")
    try:
        text = json.dumps(for_llguidance(schema))
        return LLMatcher.grammar_from_json_schema(text, overrides=_JSON_STYLE)  # pyright: ignore
    except GrammarError:
        raise
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"the schema cannot be read: {short(str(error))}") from None


def regex(pattern: str) -> str:
    """Text that matches the pattern as a whole, in the syntax of Rust's regexes, which know no look-around.

    Errors: GrammarError for an empty pattern; `Guides.check` tells what is wrong with others.
    """
    if not pattern:
        raise GrammarError("the regex is empty")
    return LLMatcher.grammar_from_regex(pattern)


def choice(texts: Sequence[str]) -> str:
    """One of the texts.

    Errors: GrammarError if there are none, or an empty one.
    """
    if not texts or not all(texts):
        raise GrammarError("a choice needs at least one text, and none may be empty")
    return f"start: TEXT\nTEXT: {' | '.join(map(literal, texts))}\n"


def lark(text: str) -> str:
    """A grammar of the client: llguidance's Lark with a rule `start`, or GBNF with a rule `root`.

    Errors: GrammarError for text that is neither, for GBNF that cannot be converted, and for schemas in it that are
    too much. `Guides.check` tells about all else.
    """
    if is_lark_syntax(text):
        _check_inner_schemas(text)
        return LLMatcher.grammar_from_lark(text)
    if not _GBNF_RULE.search(text):
        raise GrammarError(
            "the grammar is neither Lark (with a rule 'start: ...') nor GBNF (with a rule 'root ::= ...')"
        )
    if len(text) > MAX_GBNF:
        raise GrammarError(f"the GBNF grammar has {len(text)} characters, {MAX_GBNF} are allowed; larger ones in Lark")
    try:
        return LLMatcher.grammar_from_lark(gbnf_to_lark(text))
    except Exception as error:  # the converter raises whatever it meets
        raise GrammarError(f"the GBNF grammar cannot be converted to Lark: {short(str(error))}") from None


def _check_inner_schemas(text: str) -> None:
    for match in _INNER_SCHEMA.finditer(text):
        with contextlib.suppress(json.JSONDecodeError, RecursionError):  # llguidance says it better
            for_llguidance(json.JSONDecoder().raw_decode(text, match.end())[0])
