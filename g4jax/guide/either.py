"""Two grammars as one that takes either."""

import json
from typing import Any


def either(first: str, second: str) -> str:
    """Both are what the other functions of `g4jax.guide` write."""
    own = {"lark_grammar": "start: @first | @second"}
    return json.dumps({"grammars": [own, _named("first", first), _named("second", second)]})


def _named(name: str, grammar: str) -> dict[str, Any]:
    """llguidance's JSON for several grammars; one alone may be written as Lark text."""
    inner = json.loads(grammar)["grammars"][0] if grammar.startswith("{") else {"lark_grammar": grammar}
    return inner | {"name": name}
