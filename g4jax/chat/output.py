"""The ids that the model writes, read as a message: reasoning, content and tool calls, while they come.

One state machine for everything. Control tokens are recognised by id and by nothing else, so they never split over
two deltas, and text that only spells one stays text. However the ids are cut, the joined events are the same.
"""

import codecs
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal

from g4jax.chat.call_header import bare_call, called_name, next_called_name
from g4jax.chat.call_syntax import ArgumentParser
from g4jax.chat.events import Content, Event, Reasoning, ToolCallArguments, ToolCallEnd, ToolCallStart, merge
from g4jax.chat.tokenizer import ControlIds, Tokenizer
from g4jax.chat.tool_schema import ANYTHING, schemas

LABEL = "thought\n"
"""What stands behind the token that opens a channel of reasoning."""

_Mode = Literal["head", "content", "unopened", "label", "reasoning", "header", "arguments", "discard", "response"]

_LABELS: tuple[tuple[str, _Mode], ...] = ((LABEL, "reasoning"), ("response\n", "content"))


class OutputParser:
    """Reads one answer. Feed ids as they come, then call `finish`; each returns what has become certain.

    prompt_ids: the rendered prompt. It tells whether the answer begins inside a channel or a call.
    tools: the tools of the request; without tools, or with parse_tools=False (tool_choice none), calls are swallowed.
    parse_reasoning=False: the text of channels is content.
    parallel_tool_calls=False: only the first call counts; `wants_stop` then says that generation can end.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        prompt_ids: Sequence[int] = (),
        tools: Sequence[Mapping[str, Any]] | None = None,
        parse_reasoning: bool = True,
        parse_tools: bool = True,
        parallel_tool_calls: bool = True,
    ):
        self._tokenizer = tokenizer
        self._controls = {getattr(tokenizer.control, f.name): f.name for f in fields(ControlIds)}
        self._schemas = schemas(tools)
        self._parse_reasoning = parse_reasoning
        self._parse_tools = parse_tools and bool(tools)
        self._parallel = parallel_tool_calls
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._events: list[Event] = []
        self._mode: _Mode = "head"
        self._at_start = True  # a label without the token that opens its channel can stand only here
        self._buffer = ""  # undecided text of head and label, never long
        self._held: list[str] = []  # undecided text of unopened and header
        self._blank: dict[type, list[str]] = {Content: [], Reasoning: []}  # leading blanks, shown only if text follows
        self._shown: set[type] = set()
        self._newline = ""  # the one before the end of a channel belongs to the format, not to the text
        self._call: ArgumentParser | None = None
        self._in_block = False  # between the tokens of a call, not a call without them
        self._index = -1
        self.completed_calls = 0
        self.truncated_call = False
        self._finished = False
        self._start(prompt_ids)

    @property
    def wants_stop(self) -> bool:
        """Nothing that could still come would be used."""
        return self.completed_calls > 0 and not self._parallel

    def feed(self, ids: Iterable[int]) -> list[Event]:
        """Raises nothing, whatever the ids."""
        pending = bytearray()
        for token_id in ids:
            if token_id in self._tokenizer.control_ids:
                self._bytes(pending, final=True)
                pending.clear()
                self._control(self._controls.get(token_id, "other"))
            else:
                pending += self._tokenizer.token_bytes(token_id)
        self._bytes(pending)
        return self._take()

    def finish(self) -> list[Event]:
        """The end of the answer: what was held back."""
        if not self._finished:
            self._bytes(b"", final=True)
            self._control("eos")
            self._finished = True
        return self._take()

    def finish_reason(self, engine_reason: str) -> str:
        """`tool_calls` if there is a complete call, `length` if a call was cut off, else what the engine says."""
        if self.truncated_call:
            return "length"
        if self.completed_calls and engine_reason != "length":
            return "tool_calls"
        return engine_reason

    # What the ids say

    def _start(self, prompt_ids: Sequence[int]) -> None:
        """Puts the machine where the prompt ends. The text that the prompt itself shows is not shown again."""
        opening = self._tokenizer.control_ids - {self._tokenizer.control.quote}
        end = next((i for i in range(len(prompt_ids) - 1, -1, -1) if prompt_ids[i] in opening), None)
        name = self._controls.get(prompt_ids[end]) if end is not None else None
        if name in ("channel_open", "call_open"):
            events = self.feed(prompt_ids[end:])
            self._events = events if name == "call_open" else []
            self._at_start = False

    def _bytes(self, data: bytes | bytearray, final: bool = False) -> None:
        text = self._decoder.decode(bytes(data), final)
        while text:
            text = self._text(text)

    def _text(self, text: str) -> str:
        """Takes text in, returns what is left to read after a change of mode."""
        return getattr(self, f"_{self._mode}_text")(text)

    def _control(self, name: str) -> None:
        getattr(self, f"_{self._mode}_control")(name)

    def _enter(self, mode: _Mode) -> None:
        self._mode = mode
        self._buffer = ""

    def _border(self, name: str) -> None:
        """Where a control token leads from outside of a call."""
        if name == "channel_open":
            self._enter("label")
        elif name == "call_open":
            self._call, self._in_block = None, True
            self._enter("discard" if self.wants_stop else "header")
        elif name == "response_open":
            self._enter("response")
        elif name in ("channel_close", "call_close", "response_close", "turn_close", "turn_open", "eos", "bos"):
            self._enter("head")
        self._at_start = False

    # Outside of channels and calls

    def _head_text(self, text: str) -> str:
        """The beginning of a segment, where a forgotten control token can be repaired."""
        self._buffer += text
        if self._at_start and self._buffer.startswith(LABEL):
            return self._leave_head("unopened")
        if self._at_start and LABEL.startswith(self._buffer):
            return ""
        call = bare_call(self._buffer, self._schemas) if self._parse_tools and not self.wants_stop else None
        if call is None:
            return self._leave_head("content")
        if call:
            name, opener, rest = call
            self._in_block = False
            self._begin_call(name, opener)
            return rest
        return ""

    def _leave_head(self, mode: _Mode) -> str:
        text = self._buffer
        self._at_start = False
        self._enter(mode)
        return text

    def _head_control(self, name: str) -> None:
        label_only = self._at_start and name == "channel_close" and self._buffer == LABEL.rstrip()
        if not label_only:
            self._show(Content, self._buffer)
        if name in _NEUTRAL:
            self._mode = "content" if self._buffer else "head"
            self._buffer = ""
        else:
            self._border(name)

    def _content_text(self, text: str) -> str:
        self._show(Content, text)
        return ""

    def _content_control(self, name: str) -> None:
        if name not in _NEUTRAL:
            self._border(name)

    def _unopened_text(self, text: str) -> str:
        """A label that nothing opened: reasoning if a closer follows, else it was content."""
        self._held.append(text)
        return ""

    def _unopened_control(self, name: str) -> None:
        if name in _NEUTRAL:
            return
        text = "".join(self._held)
        self._held.clear()
        if name == "channel_close":
            self._show_reasoning(text.removeprefix(LABEL))
            self._newline = ""
        else:
            self._show(Content, text)
        self._border(name)

    # Inside a channel

    def _label_text(self, text: str) -> str:
        self._buffer += text
        for label, mode in _LABELS:
            if self._buffer.startswith(label):
                rest = self._buffer.removeprefix(label)
                self._enter(mode)
                return rest
            if label.startswith(self._buffer):
                return ""
        rest = self._buffer
        self._enter("reasoning")
        return rest

    def _label_control(self, name: str) -> None:
        if name in _NEUTRAL:
            return
        if self._buffer + "\n" not in dict(_LABELS):
            self._show_reasoning(self._buffer)
        self._reasoning_control(name)

    def _reasoning_text(self, text: str) -> str:
        self._show_reasoning(text)
        return ""

    def _reasoning_control(self, name: str) -> None:
        if name not in _NEUTRAL:
            self._newline = ""
            self._border(name)

    def _show_reasoning(self, text: str) -> None:
        text = self._newline + text
        self._newline = "\n" if text.endswith("\n") else ""
        self._show(Reasoning if self._parse_reasoning else Content, text.removesuffix("\n"))

    # Inside a call

    def _header_text(self, text: str) -> str:
        """In front of the arguments: `call:NAME`, and what models write in place of it."""
        brace = re.search(r"[{(]", text)
        if not brace:
            self._held.append(text)
            return ""
        header = "".join(self._held) + text[: brace.start()]
        self._held.clear()
        name = next_called_name(header) if self._call else called_name(header, self._schemas)
        if name and not self.wants_stop:
            self._begin_call(name, brace.group())
        else:
            self._enter("discard")
        return text[brace.end() :]

    def _header_control(self, name: str) -> None:
        if name not in _NEUTRAL:
            self._held.clear()
            self._call = None
            self._border(name)

    def _begin_call(self, name: str, opener: str) -> None:
        self._call = ArgumentParser(self._schemas.get(name, ANYTHING), opener)
        self._enter("arguments")
        if self._parse_tools:
            self._index += 1
            self._events.append(ToolCallStart(self._index, f"call_{uuid.uuid4().hex[:24]}", name))
        self._show_arguments(was_complete=False)

    def _arguments_text(self, text: str) -> str:
        call = self._open_call()
        was_complete = call.complete
        rest = call.feed(text)
        self._show_arguments(was_complete)
        if call.failed:
            self._leave_call("discard")
        elif call.done:
            self._enter("header" if self._in_block else "head")
        return rest

    def _arguments_control(self, name: str) -> None:
        call = self._open_call()
        was_complete = call.complete
        if name == "quote":
            call.quote()
        elif name == "call_close":
            call.close()
        self._show_arguments(was_complete)
        if name in ("eos", "turn_close", "turn_open", "response_open") and not call.complete and self._parse_tools:
            self.truncated_call = True
        if name not in _NEUTRAL and name not in ("channel_open", "channel_close"):
            self._leave_call("head")
            self._border(name)

    def _show_arguments(self, was_complete: bool) -> None:
        call = self._open_call()
        text = call.take()
        if not self._parse_tools:
            return
        if text:
            self._events.append(ToolCallArguments(self._index, text))
        if call.complete and not was_complete:
            self.completed_calls += 1
            self._events.append(ToolCallEnd(self._index))

    def _open_call(self) -> ArgumentParser:
        assert self._call is not None, "the mode 'arguments' has a call"
        return self._call

    def _leave_call(self, mode: _Mode) -> None:
        self._call = None
        self._enter(mode)

    def _discard_text(self, text: str) -> str:
        return ""

    def _discard_control(self, name: str) -> None:
        if name not in _NEUTRAL and name not in ("channel_open", "channel_close"):
            self._call = None
            self._border(name)

    # A tool response that the model invents

    def _response_text(self, text: str) -> str:
        return ""

    def _response_control(self, name: str) -> None:
        if name in ("response_close", "turn_close", "turn_open", "eos"):
            self._border(name)

    # Events

    def _show(self, kind: type[Content] | type[Reasoning], text: str) -> None:
        """Leading blanks wait for text; if none comes there was no content."""
        if kind not in self._shown:
            self._blank[kind].append(text)
            if not text.strip():
                return
            text = "".join(self._blank[kind])
            self._shown.add(kind)
        if text:
            self._events.append(kind(text))

    def _take(self) -> list[Event]:
        events, self._events = merge(self._events), []
        return events


_NEUTRAL = frozenset(
    {"other", "pad", "unk", "mask", "quote", "think", "tool_open", "tool_close"}
    | {"image_open", "image", "image_close", "audio_open", "audio", "audio_close", "video"}
)
"""Control tokens that change nothing: they are dropped wherever they stand."""


def ends_in_thought(tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> bool:
    """The prompt ends within an open channel."""
    last = next((i for i in reversed(prompt_ids) if i in tokenizer.control_ids), None)
    return last is not None and last == tokenizer.control.channel_open
