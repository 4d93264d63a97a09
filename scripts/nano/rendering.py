"""Samples as text: the prompt by the chat template, the reply in the notation that the model is to write."""

import re
from collections.abc import Mapping

from g4jax.chat.template import ChatTemplate
from scripts.nano.tasks import Reply, Sample
from scripts.nano.values import Value

OPEN_THOUGHT = "<|channel>thought\n"
_REPLY = re.compile(r"(?:<\|channel>thought\n(?P<thought>.*?)\n<channel\|>)?(?P<rest>.*)", re.DOTALL)


def prompt(sample: Sample, template: ChatTemplate) -> str:
    """What stands before the reply; for prose only the BOS."""
    if sample.prose is not None:
        return "<bos>"
    tools = [tool.declaration() for tool in sample.tools] or None
    return template.render(sample.messages, tools, enable_thinking=sample.thinking)


def reply(sample: Sample, rendered_prompt: str) -> str:
    """What the model is to write after `rendered_prompt`, up to and with the token that ends its turn."""
    if sample.prose is not None:
        return f"{sample.prose}<eos>"
    opening = "" if rendered_prompt.endswith(OPEN_THOUGHT) else OPEN_THOUGHT
    thought = "" if sample.reply.thought is None else f"{opening}{sample.reply.thought}\n<channel|>"
    return thought + answer(sample.reply)


def answer(reply: Reply) -> str:
    """A reply without its thought."""
    if not reply.calls:
        return f"{reply.text}<turn|>"
    calls = (f"<|tool_call>call:{name}{{{_arguments(arguments)}}}<tool_call|>" for name, arguments in reply.calls)
    return "".join(calls) + "<|tool_response>"


def _arguments(arguments: Mapping[str, Value]) -> str:
    return ",".join(f"{name}:{_notation(value)}" for name, value in arguments.items())


def _notation(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'<|"|>{value}<|"|>' if isinstance(value, str) else str(value)


def is_right(sample: Sample, rendered_prompt: str, written: str) -> bool:
    """Whether `written` (control tokens spelled out) has the form that was asked for and the one right answer.

    The words of a thought are free; that there is one, closed, where thinking is on is not.
    """
    if sample.thinking and rendered_prompt.endswith(OPEN_THOUGHT):
        written = OPEN_THOUGHT + written
    match = _REPLY.fullmatch(written)
    assert match is not None
    return (match["thought"] is not None) == sample.thinking and match["rest"] == answer(sample.reply)
