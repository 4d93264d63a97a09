"""What stands in front of the arguments of a tool call: `call:NAME`, and what models write in place of it."""

import re
from collections.abc import Container

_HEADER = re.compile(r"\s*[:\-]*\s*(?:call\s*:)?[\s:\-]*(.*?)\s*", re.DOTALL)
_NAME = re.compile(r"\w[\w.:\-]*")
_NEXT_CALL = re.compile(r"\bcall\s*:\s*(\w[\w.:\-]*)\s*$")
_NO_NAME = re.compile(r"[^\w.:\-]")
_BARE_CALLS = ("call:", "<call>", "<|tool_call|>call:")
"""How a call begins whose control token was forgotten or spelled out."""

_MAX_NAME = 128
_MAX_BLANK = 64


def called_name(header: str, known: Container[str]) -> str | None:
    """The name in `call:NAME`, `:NAME`, `:call:NAME`, `-NAME` or `NAME`; None if there is none."""
    match = _HEADER.fullmatch(header)
    name = match.group(1) if match else ""
    return name if _NAME.fullmatch(name) or name in known else None


def next_called_name(header: str) -> str | None:
    """The name of a further call in the same block, where other text may stand between the two."""
    match = _NEXT_CALL.search(header)
    return match.group(1) if match else None


def bare_call(text: str, known: Container[str]) -> tuple[str, str, str] | tuple[()] | None:
    """(name, brace, text behind it) if the text begins with a call of a known tool, () while it may yet, None if not.

    It decides on the same character however much text follows.
    """
    stripped = text.lstrip()
    if len(text) - len(stripped) > _MAX_BLANK:
        return None
    for opening in _BARE_CALLS:
        if opening.startswith(stripped):
            return ()
        if stripped.startswith(opening):
            return _named_call(stripped.removeprefix(opening), known)
    return None


def _named_call(text: str, known: Container[str]) -> tuple[str, str, str] | tuple[()] | None:
    brace = _NO_NAME.search(text)
    name = text[: brace.start()] if brace else text
    if len(name) > _MAX_NAME:
        return None
    if brace is None:
        return ()
    return (name, brace.group(), text[brace.end() :]) if brace.group() in "{(" and name in known else None
