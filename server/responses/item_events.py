"""The events of the output items, made from the steps of an answer."""

from collections.abc import Iterator

from server.responses.answer import FunctionCallItem, OutputItem, OutputText, ReasoningItem, ReasoningText
from server.responses.events import (
    CallDelta,
    CallDone,
    Event,
    ItemAdded,
    ItemDone,
    PartAdded,
    PartDone,
    ReasoningDelta,
    ReasoningDone,
    TextDelta,
    TextDone,
)
from server.responses.items import close_item, opened_item
from server.translate.parts import Closed, Grown, Opened, Part, Step


class ItemEvents:
    """`done` are the items that have ended, in order; their place in it is their output_index."""

    def __init__(self) -> None:
        self.done: list[OutputItem] = []
        self._item: OutputItem | None = None

    def of(self, step: Step) -> Iterator[Event]:
        match step:
            case Opened(part):
                self._item = opened_item(part)
                yield from self._opened(self._item)
            case Grown():
                yield self._grown(step)
            case Closed(part):
                yield from self._closed(part)

    def _opened(self, item: OutputItem) -> Iterator[Event]:
        yield ItemAdded(len(self.done), item)
        if not isinstance(item, FunctionCallItem):
            part = ReasoningText() if isinstance(item, ReasoningItem) else OutputText()
            yield PartAdded(item.id, len(self.done), 0, part)

    def _grown(self, step: Grown) -> Event:
        item, index, piece = self._current(), len(self.done), step.piece
        if isinstance(item, FunctionCallItem):
            return CallDelta(item.id, index, piece)
        if isinstance(item, ReasoningItem):
            return ReasoningDelta(item.id, index, 0, piece)
        return TextDelta(item.id, index, 0, piece, step.logprobs)

    def _closed(self, part: Part) -> Iterator[Event]:
        item, index = self._current(), len(self.done)
        close_item(item, part)
        if isinstance(item, FunctionCallItem):
            yield CallDone(item.id, index, item.name, item.arguments)
        elif isinstance(item, ReasoningItem):
            yield ReasoningDone(item.id, index, 0, item.content[0].text)
            yield PartDone(item.id, index, 0, item.content[0])
        else:
            yield TextDone(item.id, index, 0, item.content[0].text, item.content[0].logprobs)
            yield PartDone(item.id, index, 0, item.content[0])
        yield ItemDone(index, item)
        self.done.append(item)

    def _current(self) -> OutputItem:
        assert self._item is not None
        return self._item
