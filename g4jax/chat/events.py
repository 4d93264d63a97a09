"""What an answer is made of while it streams, and the whole message that the pieces add up to."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Reasoning:
    text: str


@dataclass(frozen=True)
class Content:
    text: str


@dataclass(frozen=True)
class ToolCallStart:
    """`index` counts the calls in the order of the output."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class ToolCallArguments:
    """A piece of the arguments; the pieces of one call, joined, are a JSON object."""

    index: int
    text: str


@dataclass(frozen=True)
class ToolCallEnd:
    """The call is complete. A call that was cut off or broken has no end."""

    index: int


Event = Reasoning | Content | ToolCallStart | ToolCallArguments | ToolCallEnd


@dataclass
class ToolCall:
    """`arguments` is JSON text; of a call that is not `complete` it is only the beginning of it."""

    id: str
    name: str
    arguments: str = ""
    complete: bool = False


@dataclass
class ParsedMessage:
    """The whole answer. `unfinished` holds calls that began and were cut off or broken: never run those."""

    content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] = field(default_factory=list)
    unfinished: list[ToolCall] = field(default_factory=list)


def merge(events: Iterable[Event]) -> list[Event]:
    """Neighbours that continue one another become one event."""
    merged: list[Event] = []
    for (kind, _), group in itertools.groupby(events, key=lambda e: (type(e), getattr(e, "index", None))):
        members = list(group)
        text = "".join(getattr(event, "text", "") for event in members)
        if kind in (Content, Reasoning):
            merged.append(kind(text))
        elif kind is ToolCallArguments:
            merged.append(replace(members[0], text=text))
        else:
            merged += members
    return merged


def collect(events: Iterable[Event]) -> ParsedMessage:
    content: list[str] = []
    reasoning: list[str] = []
    arguments: dict[int, list[str]] = {}
    calls: dict[int, ToolCall] = {}
    for event in events:
        match event:
            case Content(text):
                content.append(text)
            case Reasoning(text):
                reasoning.append(text)
            case ToolCallStart(index, call_id, name):
                calls[index] = ToolCall(call_id, name)
                arguments[index] = []
            case ToolCallArguments(index, text):
                arguments[index].append(text)
            case ToolCallEnd(index):
                calls[index].complete = True
    for index, call in calls.items():
        call.arguments = "".join(arguments[index])
    return ParsedMessage(
        content="".join(content) or None,
        reasoning="".join(reasoning) or None,
        tool_calls=[call for call in calls.values() if call.complete],
        unfinished=[call for call in calls.values() if not call.complete],
    )
