"""A conversation that comes in pieces, as the messages of a chat."""

from dataclasses import dataclass, field
from typing import Any, Literal

Content = str | list[dict[str, Any]]


@dataclass
class _Turn:
    message: dict[str, Any]
    results: list[dict[str, Any]] = field(default_factory=list)


class Turns:
    """Collects the pieces in their order.

    A thought and the calls or the text behind it become one message of the assistant. Text and calls do not share one:
    a template writes a message's calls in front of its text, whatever their order was. A result stands right behind
    the call that it answers, where templates look for it. What the system says at the beginning is one message, for
    the model knows one turn of the system.
    """

    def __init__(self) -> None:
        self._turns: list[_Turn] = []
        self._callers: dict[str, _Turn] = {}

    def say(self, role: Literal["system", "developer", "user"], content: Content) -> None:
        first = self._turns[0].message if len(self._turns) == 1 else None
        if role != "user" and first is not None and first["role"] in ("system", "developer"):
            first["content"] = _parts(first["content"]) + _parts(content)
        else:
            self._turns.append(_Turn({"role": role, "content": content}))

    def think(self, text: str) -> None:
        """An empty thought, such as one that only its author can read, is none."""
        if text:
            self._turns.append(_Turn({"role": "assistant", "reasoning_content": text}))

    def answer(self, text: str) -> None:
        """Text of the assistant."""
        self._own({"content", "tool_calls"})["content"] = text

    def call(self, call_id: str, name: str, arguments: dict[str, Any]) -> None:
        call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        self._own({"content"}).setdefault("tool_calls", []).append(call)
        self._callers[call_id] = self._turns[-1]

    def result(self, call_id: str, content: Content) -> None:
        """Raises KeyError for a call that is not there."""
        self._callers[call_id].results.append({"role": "tool", "tool_call_id": call_id, "content": content})

    def messages(self) -> list[dict[str, Any]]:
        return [message for turn in self._turns for message in (turn.message, *turn.results)]

    def _own(self, excluded: set[str]) -> dict[str, Any]:
        """The assistant's last message, or a new one where the last holds what must not stand before this piece."""
        last = self._turns[-1] if self._turns else None
        if last is None or last.message["role"] != "assistant" or last.results or excluded & last.message.keys():
            last = _Turn({"role": "assistant"})
            self._turns.append(last)
        return last.message


def _parts(content: Content) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
