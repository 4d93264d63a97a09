"""Strings, numbers and constants in Gemma's notation, as pieces of a grammar."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from llguidance import LLMatcher

from g4jax.guide.errors import GrammarError, cause
from g4jax.guide.lark_rules import LarkRules, literal
from g4jax.guide.schema_dialect import check_multiples, significant, usable_bound
from g4jax.guide.schema_keywords import NUMERIC_BOUNDS
from g4jax.guide.schema_merge import Node
from g4jax.guide.text_patterns import formatted, searched

_MAX_TEXT = 100_000
_MAX_CHECKED = 500
_BARE_KEY = re.compile(r"[A-Za-z_$@][\w$@.\-]*", re.ASCII)
"""Keys that the reader of calls takes without delimiters, wherever they stand."""

_COMMA = ' "," '
_FREE_KEY = r"/[A-Za-z_$@][A-Za-z0-9_$@.\-]{0,63}/"
_FREE_TEXT_KEY = "/(?s:.){1,64}/"
_INTEGER = "/-?(0|[1-9][0-9]{0,18})/"
_NUMBER = r"/-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?/"
_TEXT = "/(?s:.)+/"


class CallScalars:
    """`quote` is the id of the token on both sides of a string, which has no escapes in between."""

    def __init__(self, rules: LarkRules, quote: int):
        self._rules = rules
        self._quote = f"<[{quote}]>"
        self._checked_pieces: set[str] = set()

    def string(self, node: Node, where: str) -> str | None:
        """None if none is long and short enough."""
        patterns = node.get("pattern", ())
        regexes = [self._checked(searched(pattern), f"{where}: pattern {pattern!r}") for pattern in patterns]
        regexes += filter(None, map(formatted, node.get("format", ())))
        shortest, longest = node.get("minLength", 0), min(node.get("maxLength", _MAX_TEXT), _MAX_TEXT)
        if shortest > _MAX_TEXT:
            raise GrammarError(f"{where}: minLength is at most {_MAX_TEXT}")
        if shortest > longest:
            return None
        if shortest or "maxLength" in node:
            regexes.append(f"/(?s:.){{{shortest},{longest if 'maxLength' in node else ''}}}/")
        text = self._rules.terminal(" & ".join(regexes)) if regexes else self._rules.terminal(_TEXT) + "?"
        return f"{self._quote} {text} {self._quote}"

    def number(self, kind: str, node: Node, where: str) -> str:
        """kind: "number" or "integer". Without bounds no more digits than anybody needs."""
        bounds = {key: usable_bound(key, node[key]) for key in NUMERIC_BOUNDS if key in node}
        if not bounds:
            return self._rules.terminal(_INTEGER if kind == "integer" else _NUMBER)
        if "multipleOf" in bounds:
            check_multiples({significant(bounds["multipleOf"])})
        schema = {"type": kind, **bounds, "x-guidance": {"whitespace_flexible": False}}
        return self._rules.rule(self._checked(f"%json {json.dumps(schema)}", f"{where}: {kind}"))

    def constants(self, values: list[Any], where: str) -> list[str]:
        """One piece for each value, but one for all of the strings."""
        texts = [literal(value) for value in values if isinstance(value, str) and value]
        strings = [f"{self._quote} {self._rules.terminal(' | '.join(texts))} {self._quote}"] if texts else []
        return strings + [self._constant(value, where) for value in values if not isinstance(value, str) or not value]

    def key(self, name: str, before: str = "") -> str:
        """A key and its colon. `before`: a comma that stands in front."""
        if _BARE_KEY.fullmatch(name):
            return literal(f"{before}{name}:")
        return f"{literal(before)} {self._delimited(name)} {literal(':')}"

    def free_key(self, taken: list[str]) -> str:
        """Any key but those that are taken."""
        others = f" & ~({' | '.join(map(literal, taken))})" if taken else ""
        bare = self._rules.terminal(_FREE_KEY + others)
        text = self._rules.terminal(_FREE_TEXT_KEY + others)
        return self._rules.rule(f'({bare} | {self._quote} {text} {self._quote}) ":"')

    def _constant(self, value: Any, where: str) -> str:
        if isinstance(value, str):
            return self._delimited(value)
        if isinstance(value, list):
            return f'"[" {_COMMA.join(self._constant(item, where) for item in value)} "]"'
        if isinstance(value, Mapping):
            pairs = [f"{self.key(name)} {self._constant(value[name], where)}" for name in in_order(value)]
            return f'"{{" {_COMMA.join(pairs)} "}}"'
        try:
            return literal(json.dumps(value, allow_nan=False))
        except ValueError:
            raise GrammarError(f"{where}: {value} is not a JSON number") from None

    def _checked(self, piece: str, where: str) -> str:
        """The piece itself. GrammarError if it cannot be compiled; past many pieces only the whole grammar tells."""
        if piece not in self._checked_pieces and len(self._checked_pieces) < _MAX_CHECKED:
            self._checked_pieces.add(piece)
            is_wrong, messages = LLMatcher.validate_grammar_with_warnings(f"start: {piece}")
            if is_wrong:
                raise GrammarError(f"{where}: {cause(messages[0])}")
        return piece

    def _delimited(self, text: str) -> str:
        return f"{self._quote} {literal(text)} {self._quote}"


def in_order(names: Iterable[str]) -> list[str]:
    """As the chat template writes keys."""
    return sorted(names, key=str.lower)
