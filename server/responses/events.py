"""The events of a streamed response, field by field as OpenAI's own types. The tag is the event's name."""

import msgspec

from server.answers import TokenLogprob
from server.responses.answer import OutputItem, OutputText, ReasoningText, Response


class Event(msgspec.Struct, tag_field="type", kw_only=True):
    """`sequence_number` is filled in where the event is sent."""

    sequence_number: int = 0


class Created(Event, tag="response.created"):
    response: Response


class InProgress(Event, tag="response.in_progress"):
    response: Response


class Completed(Event, tag="response.completed"):
    response: Response


class Incomplete(Event, tag="response.incomplete"):
    response: Response


class Failed(Event, tag="response.failed"):
    response: Response


class ItemAdded(Event, tag="response.output_item.added"):
    output_index: int
    item: OutputItem


class ItemDone(Event, tag="response.output_item.done"):
    output_index: int
    item: OutputItem


class _OfItem(Event):
    item_id: str
    output_index: int


class CallDelta(_OfItem, tag="response.function_call_arguments.delta"):
    delta: str


class CallDone(_OfItem, tag="response.function_call_arguments.done"):
    name: str
    arguments: str


class _OfPart(_OfItem):
    content_index: int


class PartAdded(_OfPart, tag="response.content_part.added"):
    part: OutputText | ReasoningText


class PartDone(_OfPart, tag="response.content_part.done"):
    part: OutputText | ReasoningText


class TextDelta(_OfPart, tag="response.output_text.delta"):
    delta: str
    logprobs: list[TokenLogprob]


class TextDone(_OfPart, tag="response.output_text.done"):
    text: str
    logprobs: list[TokenLogprob]


class ReasoningDelta(_OfPart, tag="response.reasoning_text.delta"):
    delta: str


class ReasoningDone(_OfPart, tag="response.reasoning_text.done"):
    text: str
