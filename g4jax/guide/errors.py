"""What is wrong with a grammar, told to the client."""

import re

_QUOTED_SOURCE = re.compile(r"\s*(\d+ \| .*|\^+|<non-verbose/>)?\s*")
_MAX_LENGTH = 300


class GrammarError(ValueError):
    """A grammar or schema that cannot be followed. The message is short, and says what to change."""

    def __init__(self, message: str):
        super().__init__(_cut(message))


def cause(message: str) -> str:
    """The end of what llguidance says of a piece of a grammar, where the reason stands."""
    return re.split(r"error: |\(in regex\): |JSON schema: ", short(message))[-1]


def short(message: str) -> str:
    """What llguidance says in one line, without the piece of the grammar that it quotes."""
    lines = [line.strip() for line in message.splitlines() if not _QUOTED_SOURCE.fullmatch(line)]
    return _cut(" ".join(lines).replace("NoExtensionBias", "no token fits"))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 1] + "…"
