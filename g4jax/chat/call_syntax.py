"""The arguments of a tool call in Gemma's notation, read as a stream and written as JSON.

    object := "{" [ key ":" value { "," key ":" value } ] "}"      value := string | bare | object | "[" values "]"

A string stands between two delimiter tokens and has no escapes at all. Keys and other scalars are bare.
What models write besides that is repaired where the meaning is clear: JSON quotes, single quotes, bare strings,
a forgotten opening delimiter, `( )` in place of `{ }`, stray commas, missing closers before the end of the call.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from g4jax.chat.tool_schema import Schema, bare_to_json, string_to_json

MAX_DEPTH = 64
_KEY = re.compile(r"[\w$@][\w$@.\-]*|\"[^\"]*\"|'[^']*'")


@dataclass
class _Frame:
    """An open object or array. `closer` is what ends it in the text; JSON's own closer follows from `is_object`."""

    closer: str
    is_object: bool
    schema: Schema
    count: int = 0

    @property
    def json_closer(self) -> str:
        return "}" if self.is_object else "]"


class ArgumentParser:
    """Reads the arguments from behind their opening brace. Feed text and delimiter tokens in the order they come.

    `opener` is the brace that was read, "{" or "(". `take()` gives the JSON that is certain so far; a bare value is
    held until its end is known, a string streams. Linear time; nesting is bounded by MAX_DEPTH.

    `complete`: the object is closed, the JSON is whole. `done`: the parser wants no more text.
    `failed`: the text is nested too deeply and nothing can be made of it.
    """

    def __init__(self, schema: Schema, opener: str = "{"):
        self.complete = self.done = self.failed = False
        self._wrapped = False
        self._out = ["{"]
        self._stack = [_Frame("}" if opener == "{" else ")", True, schema)]
        self._state: Callable[[str, int], int] = self._key
        self._name = ""  # key of the value that comes
        self._buffer: list[str] = []  # characters of the key or value that is being read
        self._end: int | None = None  # where in the buffer the value may end: at a comma or a second quote
        self._nested = 0  # brackets open inside a bare value
        self._quote_mark = ""
        self._escaped = False
        self._streams = True  # the string goes out as it comes; else the schema wants it whole
        self._tail = ""  # closers at the end of a string: its text, or the end of a call whose delimiter is missing

    def feed(self, text: str) -> str:
        """Returns the text behind the end of the arguments."""
        position = 0
        while position < len(text) and not self.done:
            position = self._state(text, position)
        return text[position:]

    def take(self) -> str:
        text = "".join(self._out)
        self._out.clear()
        return text

    def quote(self) -> None:
        """A string delimiter token."""
        state = self._state
        if state == self._string:
            self._end_string()
        elif state == self._value:
            self._begin_string()
        elif state == self._key and not self._buffer:
            self._state = self._delimited_key
        elif state == self._delimited_key:
            self._end_key(self._text(), self._colon)
        elif state in (self._quoted, self._quoted_end):
            self._end_quoted()
        elif state == self._bare:
            self._quote_in_bare()

    def close(self) -> bool:
        """The token that ends a call has come: closes what is open if the meaning is clear. Returns `complete`."""
        if not self.done and self._settle():
            while self._stack:
                self._pop()
        return self.complete

    # Keys

    def _key(self, text: str, position: int) -> int:
        char = text[position]
        blank = not self._buffer
        if char in ":=" and (char == ":" or self._stack[-1].closer == ")"):
            self._end_key(self._text().strip(), self._value)
        elif char in "\"'" and blank:
            self._quote_mark, self._state = char, self._quoted_key
        elif char == "{" and blank and self._stack[-1].closer == ")" and not self._stack[-1].count:
            self._wrapped, self._stack[-1].closer = True, "}"
        elif char == "," or self._closes(char):
            self._buffer.clear()  # a key without a value is dropped
            if char != ",":
                self._close_to(char)
        elif not (blank and char.isspace()):
            self._buffer.append(char)
        return position + 1

    def _quoted_key(self, text: str, position: int) -> int:
        if text[position] == self._quote_mark:
            self._end_key(self._text(), self._colon)
        else:
            self._buffer.append(text[position])
        return position + 1

    def _delimited_key(self, text: str, position: int) -> int:
        self._buffer.append(text[position:])
        return len(text)

    def _colon(self, text: str, position: int) -> int:
        if text[position] in ":=":
            self._state = self._value
        elif text[position] == ",":
            self._state = self._key
        elif self._closes(text[position]):
            self._close_to(text[position])
        return position + 1

    def _end_key(self, name: str, state: Callable[[str, int], int]) -> None:
        self._name, self._state = name, state
        self._buffer.clear()

    # Values

    def _value(self, text: str, position: int) -> int:
        char = text[position]
        if char.isspace():
            return position + 1
        if char in "{[":
            self._push(char)
        elif char in "\"'":
            self._quote_mark, self._escaped, self._end, self._state = char, False, None, self._quoted
        elif char == "," or self._closes(char):
            if self._stack[-1].is_object:
                self._put(bare_to_json("", self._schema().types) if self._schema().types & {"string"} else "null")
            self._state = self._after
            return position
        else:
            self._end, self._nested, self._state = None, 0, self._bare
            return position
        return position + 1

    def _after(self, text: str, position: int) -> int:
        """Behind a value: what is no separator and no closer is dropped."""
        char = text[position]
        if char == ",":
            self._state = self._key if self._stack[-1].is_object else self._value
        elif self._closes(char):
            self._close_to(char)
        return position + 1

    def _string(self, text: str, position: int) -> int:
        data = self._tail + text[position:]
        closers = "".join(frame.closer for frame in reversed(self._stack))
        kept = next(n for n in range(min(len(closers), len(data)), -1, -1) if data.endswith(closers[:n]))
        self._tail = data[len(data) - kept :]
        self._put_string(data[: len(data) - kept])
        return len(text)

    def _begin_string(self) -> None:
        types = self._schema().types
        self._streams, self._tail, self._state = not types or "string" in types, "", self._string
        if self._streams:
            self._put('"')

    def _put_string(self, text: str) -> None:
        if self._streams:
            self._out.append(json.dumps(text, ensure_ascii=False)[1:-1])
        else:
            self._buffer.append(text)

    def _end_string(self) -> None:
        self._put_string(self._tail)
        if self._streams:
            self._out.append('"')
        else:
            self._put(string_to_json(self._text(), self._schema().types))
        self._end_value()

    def _quoted(self, text: str, position: int) -> int:
        """Between JSON or single quotes."""
        char = text[position]
        if char == self._quote_mark and not self._escaped:
            self._end, self._state = len(self._buffer), self._quoted_end
        else:
            self._escaped = char == "\\" and not self._escaped
            self._buffer.append(char)
        return position + 1

    def _quoted_end(self, text: str, position: int) -> int:
        """Behind the second quote: unless the value ends here, the quotes were part of a bare string."""
        char = text[position]
        if char.isspace():
            self._buffer.append(char)
            return position + 1
        if char == "," or self._closes(char):
            self._end_quoted()
            return position
        self._buffer = [self._quote_mark, *self._buffer[: self._end], self._quote_mark, *self._buffer[self._end :]]
        self._end, self._nested, self._state = None, 0, self._bare
        return position

    def _end_quoted(self) -> None:
        text = "".join(self._buffer[: self._end])
        self._put(string_to_json(_unquote(text, self._quote_mark), self._schema().types))
        self._end_value()

    def _bare(self, text: str, position: int) -> int:
        char = text[position]
        frame = self._stack[-1]
        if not self._nested and self._closes(char):
            self._end_bare(self._text_before_trailing_comma())
            return position
        if not self._nested and char == "," and not frame.is_object:
            self._end_bare(self._text())
            return position
        if not self._nested and char == ",":
            self._end = len(self._buffer)  # the end of the value only if a key follows: see below
        elif self._end is not None and (char == ":" or char == "=" and frame.closer == ")"):
            key = "".join(self._buffer[self._end + 1 :]).strip()
            if _KEY.fullmatch(key):
                self._end_bare("".join(self._buffer[: self._end]))
                self._end_key(key.strip("\"'"), self._value)
                return position + 1
            self._end = None
        elif char in "{[":
            self._nested += 1
        elif char in "}]" and self._nested:
            self._nested -= 1
        self._buffer.append(char)
        return position + 1

    def _quote_in_bare(self) -> None:
        """A delimiter behind bare text: it closes a string whose opening delimiter was forgotten."""
        if self._end is not None and not "".join(self._buffer[self._end + 1 :]).strip():
            self._end_bare("".join(self._buffer[: self._end]))
            self._state = self._delimited_key
        else:
            self._put(string_to_json(self._text(), self._schema().types))
            self._end_value()

    def _end_bare(self, text: str) -> None:
        text = text.strip()
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
            self._put(string_to_json(_unquote(text[1:-1], text[0]), self._schema().types))
        else:
            self._put(bare_to_json(text, self._schema().types))
        self._end_value()

    def _text_before_trailing_comma(self) -> str:
        text = self._text().rstrip()
        return text.removesuffix(",") if self._end is not None else text

    def _end_value(self) -> None:
        self._buffer.clear()
        self._state = self._after

    # Structure

    def _schema(self) -> Schema:
        """Of the value that comes or is being read."""
        frame = self._stack[-1]
        return frame.schema.property(self._name) if frame.is_object else frame.schema.items

    def _put(self, value: str) -> None:
        """Writes the beginning of a value, with what JSON wants in front of it."""
        frame = self._stack[-1]
        comma = "," if frame.count else ""
        key = json.dumps(self._name, ensure_ascii=False) + ":" if frame.is_object else ""
        self._out.append(comma + key + value)
        frame.count += 1

    def _push(self, opener: str) -> None:
        if len(self._stack) >= MAX_DEPTH:
            self.failed = self.done = True
            return
        schema = self._schema()
        self._put(opener)
        self._stack.append(_Frame("}" if opener == "{" else "]", opener == "{", schema))
        self._state = self._key if opener == "{" else self._value

    def _closes(self, char: str) -> bool:
        return char in "}])" and any(frame.closer == char for frame in self._stack)

    def _close_to(self, char: str) -> None:
        """Closes the innermost frame that ends with `char`, and those inside it whose closers are missing."""
        while self._stack[-1].closer != char:
            self._pop()
        self._pop()

    def _pop(self) -> None:
        self._out.append(self._stack.pop().json_closer)
        self._state = self._after
        if not self._stack:
            self.complete, self.done, self._state = True, not self._wrapped, self._unwrap

    def _unwrap(self, text: str, position: int) -> int:
        """Behind the brace of `({...})`."""
        char = text[position]
        self.done = not char.isspace()
        return position + (char == ")" or char.isspace())

    def _settle(self) -> bool:
        """Ends the value that is being read; False where nobody can know what was meant."""
        state = self._state
        closers = "".join(frame.closer for frame in reversed(self._stack))
        if state == self._string:
            if self._tail != closers:
                return False
            self._tail = ""
            self._end_string()
        elif state == self._quoted:
            text = self._text()
            if not text.endswith(closers):
                return False
            self._end_bare(self._quote_mark + text.removesuffix(closers))
        elif state == self._quoted_end:
            self._end_quoted()
        elif state == self._bare:
            self._end_bare(self._text_before_trailing_comma())
        elif state == self._value:
            return not self._stack[-1].is_object
        elif state in (self._key, self._quoted_key, self._delimited_key, self._colon):
            return state == self._key and not self._buffer
        return True

    def _text(self) -> str:
        return "".join(self._buffer)


def _unquote(text: str, mark: str) -> str:
    if mark == "'":
        return text.replace("\\'", "'")
    try:
        return json.loads(f'"{text}"', strict=False)
    except ValueError:
        return text
