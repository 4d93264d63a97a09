"""Regexes for strings under `pattern` and `format`, as llguidance's Lark syntax takes them."""

from collections.abc import Iterator

from llguidance import regex_to_lark

_ANYTHING = "(?s:.*)"
_YEAR_MONTH_DAY = (
    r"[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8]))|[0-9]{2}(?:0[48]|[2468][048]|[13579][26])-02-29"
    r"|(?:[02468][048]|[13579][26])00-02-29"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL}){{0,8}}"
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_UNIT_COUNT = "[0-9]{1,9}"
_CLOCK = rf"T(?:{_UNIT_COUNT}H(?:{_UNIT_COUNT}M(?:{_UNIT_COUNT}S)?)?|{_UNIT_COUNT}M(?:{_UNIT_COUNT}S)?|{_UNIT_COUNT}S)"
_DAYS = rf"(?:{_UNIT_COUNT}Y(?:{_UNIT_COUNT}M(?:{_UNIT_COUNT}D)?)?|{_UNIT_COUNT}M(?:{_UNIT_COUNT}D)?|{_UNIT_COUNT}D)"

FORMATS = {
    "date": _YEAR_MONTH_DAY,
    "time": _TIME,
    "date-time": f"(?:{_YEAR_MONTH_DAY})T{_TIME}",
    "duration": f"P(?:{_DAYS}(?:{_CLOCK})?|{_CLOCK}|{_UNIT_COUNT}W)",
    "email": rf"[a-zA-Z0-9!#$%&'*+/=?^_`{{|}}~-]{{1,64}}(?:\.[a-zA-Z0-9_+-]{{1,64}}){{0,8}}@{_HOST}",
    "hostname": _HOST,
    "ipv4": rf"{_BYTE}(?:\.{_BYTE}){{3}}",
    "ipv6": r"(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4}){0,2})?::"
    r"(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4}){0,3})?",
    "uuid": r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "uri": r"[a-zA-Z][a-zA-Z0-9+.-]{1,30}:(?:[a-zA-Z0-9._~:/?@!$&'()*+,;=-]|%[0-9a-fA-F]{2})+",
}


def formatted(name: str) -> str | None:
    """What a string of this `format` looks like; None for formats that say nothing here."""
    regex = FORMATS.get(name)
    return None if regex is None else _slashed(regex)


def searched(pattern: str) -> str:
    """Whole strings in which JSON Schema finds the pattern: anywhere, unless it is anchored."""
    return _slashed("|".join(_unanchored(branch) for branch in _branches(pattern)))


def _unanchored(branch: str) -> str:
    """llguidance has no anchors within a regex, so those at the ends turn into the absence of other text."""
    core = branch.removeprefix("^")
    escapes = len(core) - 1 - len(core[:-1].rstrip("\\"))
    ends = core.endswith("$") and escapes % 2 == 0
    before = "" if core != branch else _ANYTHING
    return f"{before}(?:{core[:-1]})" if ends else f"{before}(?:{core}){_ANYTHING}"


def _branches(pattern: str) -> Iterator[str]:
    """The alternatives of the outermost level."""
    start, depth, in_class, position = 0, 0, False, 0
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            position += 1
        elif in_class:
            in_class = char != "]"
        elif char == "[":
            in_class = True
        elif char in "()":
            depth += 1 if char == "(" else -1
        elif char == "|" and depth == 0:
            yield pattern[start:position]
            start = position + 1
        position += 1
    yield pattern[start:]


def _slashed(regex: str) -> str:
    return f"/{regex_to_lark(regex, 'dw')}/"
