"""Constrained answers: grammars, and what they allow next. The names are imported when they are first used.

`GuideSpec` says how an answer must look, `Guides` checks and starts one, a `Guide` follows one answer token by token.
The functions write grammars for `GuideSpec.grammar`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from g4jax.guide.call_grammar import tool_calls
    from g4jax.guide.errors import GrammarError
    from g4jax.guide.grammars import choice, json_object, json_schema, lark, regex
    from g4jax.guide.guide import Guide
    from g4jax.guide.guides import Guides
    from g4jax.guide.spec import GuideSpec

__all__ = [
    "GrammarError",
    "Guide",
    "GuideSpec",
    "Guides",
    "choice",
    "json_object",
    "json_schema",
    "lark",
    "regex",
    "tool_calls",
]

_HOMES = {
    "GrammarError": "errors",
    "Guide": "guide",
    "GuideSpec": "spec",
    "Guides": "guides",
    "choice": "grammars",
    "json_object": "grammars",
    "json_schema": "grammars",
    "lark": "grammars",
    "regex": "grammars",
    "tool_calls": "call_grammar",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'g4jax.guide' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"g4jax.guide.{_HOMES[name]}"), name)
