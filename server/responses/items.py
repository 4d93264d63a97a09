"""The parts of an answer as output items."""

from server.convert import new_id
from server.responses.answer import FunctionCallItem, MessageItem, OutputItem, OutputText, ReasoningItem, ReasoningText
from server.translate.parts import Part


def opened_item(part: Part) -> OutputItem:
    """The item of a part that has just begun: without content, in progress."""
    if part.kind == "thought":
        return ReasoningItem(new_id("rs_"))
    if part.kind == "text":
        return MessageItem(new_id("msg_"))
    return FunctionCallItem(new_id("fc_"), part.call_id, part.name)


def close_item(item: OutputItem, part: Part) -> None:
    """Puts into the item all that the part has come to."""
    item.status = "completed" if part.whole else "incomplete"
    if isinstance(item, FunctionCallItem):
        item.arguments = part.text
    elif isinstance(item, ReasoningItem):
        item.content = [ReasoningText(part.text)]
    else:
        item.content = [OutputText(part.text, logprobs=part.logprobs)]


def is_output(item: OutputItem) -> bool:
    """Whether it belongs to the finished response. A call that was cut off does not: nobody shall run it."""
    return not isinstance(item, FunctionCallItem) or item.status == "completed"
