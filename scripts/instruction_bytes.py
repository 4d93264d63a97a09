"""How many bytes go into and come out of each instruction of a compiled program, from its HLO text."""

import math
import re

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s64": 8, "u64": 8, "f64": 8}
"""Of an element; all other types have 4."""

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")


def instruction_bytes(hlo: str) -> dict[str, int]:
    """By instruction: bytes of its operands and its result, each array once."""
    results: dict[str, int] = {}
    operands: dict[str, list[str]] = {}
    for line in hlo.splitlines():
        if not (match := _INSTRUCTION.match(line)):
            continue
        name, rest = match[1], match[2]
        kind, call = _split(rest)
        results[name] = _array_bytes(kind)
        operands[name] = list(dict.fromkeys(_NAME.findall(call.split("), ")[0])))
    return {
        name: size + sum(results.get(operand, 0) for operand in operands[name] if operand != name)
        for name, size in results.items()
    }


def _split(rest: str) -> tuple[str, str]:
    """The result's type, which may be a tuple in parentheses, and what follows it."""
    if not rest.startswith("("):
        kind, _, call = rest.partition(" ")
        return kind, call
    depth = 0
    for at, character in enumerate(rest):
        depth += (character == "(") - (character == ")")
        if not depth:
            return rest[: at + 1], rest[at + 1 :]
    return rest, ""


def _array_bytes(kind: str) -> int:
    return sum(
        BYTES.get(dtype, 4) * math.prod(int(size) for size in dims.split(",") if size)
        for dtype, dims in _ARRAY.findall(kind)
    )
