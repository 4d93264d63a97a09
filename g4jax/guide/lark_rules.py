"""A grammar in llguidance's Lark syntax, written piece by piece."""

import json

from g4jax.guide.errors import GrammarError

_MAX_LENGTH = 1 << 19
_DELETE = "\x7f"


class LarkRules:
    """Collects rules under names of its own. Equal bodies become one rule."""

    def __init__(self):
        self._names: dict[tuple[str, str], str] = {}
        self._lines: list[str] = []
        self._length = 0

    def rule(self, body: str) -> str:
        """The name of a rule; `body` may use rules, terminals, literals and control tokens."""
        return self._add("r", body)

    def terminal(self, body: str) -> str:
        """The name of a terminal: one piece of text, given by regexes and literals."""
        return self._add("T", body)

    def text(self, start: str) -> str:
        return "\n".join([f"start: {start}", *self._lines, ""])

    def _add(self, kind: str, body: str) -> str:
        if (kind, body) not in self._names:
            name = f"{kind}{len(self._lines)}"
            self._length += len(body)
            if self._length > _MAX_LENGTH:
                raise GrammarError("the schema becomes too large a grammar: make it smaller")
            self._lines.append(f"{name}: {body}")
            self._names[kind, body] = name
        return self._names[kind, body]


def literal(text: str) -> str:
    """Exactly this text."""
    return json.dumps(text).replace(_DELETE, "\\u007f")
