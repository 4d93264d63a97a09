"""Reads what a model wrote as messages: JSON lines in, JSON lines out.

    echo '{"text": "<|channel>thought\\nHm.<channel|>Hello<turn|>"}' | python scripts/parse_output.py
    python scripts/parse_output.py tests/data/parser_cases.jsonl

A line holds the `text` and, if there are any, the `tools` of the request; `Case` lists what else it may say. The answer
has the content, the reasoning_content, the tool_calls and the finish_reason of a chat's message, or an error.
"""

import argparse
import bisect
import fileinput
import itertools
import json
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from g4jax.chat.events import ParsedMessage, collect
from g4jax.chat.output import OutputParser, ends_in_thought
from g4jax.chat.tokenizer import Tokenizer
from g4jax.engine.checkpoint import find_checkpoint
from g4jax.engine.options import InvalidOption

PROMPTS = {
    "plain": "<bos><|turn>user\nHi<turn|>\n<|turn>model\n",
    "open_channel": "<bos><|turn>user\nHi<turn|>\n<|turn>model\n<|tool_response>x<tool_response|><|channel>thought\n",
    "closed_channel": "<bos><|turn>user\nHi<turn|>\n<|turn>model\n<|channel>thought\n<channel|>",
}


class Case(msgspec.Struct):
    """An answer and what the request said. Spellings of control tokens mean the tokens.

    chunks: the same text as it came. prompt: what stood before it, else `prompt_state` names how that ended.
    token_kinds: says that the text only spells the control tokens. reasoning_parser null: thoughts are content.
    """

    text: str
    tools: list[dict[str, Any]] | None = None
    chunks: list[str] | None = None
    prompt: str | None = None
    prompt_state: Literal["plain", "open_channel", "closed_channel"] = "plain"
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_parser: str | None = "gemma4"
    token_kinds: Any = None

    def prompt_ids(self, tokenizer: Tokenizer) -> list[int]:
        return tokenizer.encode_rendered(PROMPTS[self.prompt_state] if self.prompt is None else self.prompt)

    def ids(self, tokenizer: Tokenizer) -> list[int]:
        encode = tokenizer.encode_rendered if self.token_kinds is None else tokenizer.encode_text
        return encode(self.text)

    def pieces(self, tokenizer: Tokenizer) -> Iterator[list[int]]:
        """The ids chunk by chunk; a token belongs to the chunk in which its text ends."""
        ids, start = self.ids(tokenizer), 0
        lengths = [len(tokenizer.token_bytes(token, skip_special_tokens=False)) for token in ids]
        ends = list(itertools.accumulate(lengths))
        for end in itertools.accumulate(len(chunk.encode()) for chunk in self.chunks or [self.text]):
            stop = bisect.bisect_right(ends, end)
            yield ids[start:stop]
            start = stop
        yield ids[start:]

    def parser(self, tokenizer: Tokenizer) -> OutputParser:
        return OutputParser(
            tokenizer,
            prompt_ids=self.prompt_ids(tokenizer),
            tools=self.tools,
            parse_reasoning=self.reasoning_parser is not None,
            parse_tools=self.tool_choice != "none",
            parallel_tool_calls=self.parallel_tool_calls is not False,
        )

    def engine_reason(self, tokenizer: Tokenizer) -> Literal["stop", "length"]:
        """What the engine will have said: an answer that ends within a thought was cut off."""
        cut = ends_in_thought(tokenizer, self.prompt_ids(tokenizer) + self.ids(tokenizer))
        return "length" if cut else "stop"


def parse(case: Case, tokenizer: Tokenizer) -> dict[str, Any]:
    parser = case.parser(tokenizer)
    events = [event for piece in case.pieces(tokenizer) for event in parser.feed(piece)]
    message = collect(events + parser.finish())
    return answer(message, parser.finish_reason(case.engine_reason(tokenizer)))


def answer(message: ParsedMessage, finish_reason: str) -> dict[str, Any]:
    """In the words of a chat completion."""
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls
    ]
    return {
        "content": message.content,
        "reasoning_content": message.reasoning,
        "tool_calls": calls,
        "finish_reason": finish_reason,
    }


def parse_line(line: str, tokenizer: Tokenizer) -> dict[str, Any]:
    try:
        case = msgspec.json.decode(line, type=Case)
    except (msgspec.DecodeError, UnicodeError) as error:
        return {"error": str(error)}
    return parse(case, tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="JSON lines (default: standard input)")
    parser.add_argument("--model", help="folder or hub id with the tokenizer (default: the bundled nano)")
    given = parser.parse_args()
    tokenizer = Tokenizer(find_checkpoint(given.model, with_weights=False))
    with fileinput.input(given.files, encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                print(json.dumps(parse_line(line, tokenizer)), flush=True)


if __name__ == "__main__":
    try:
        main()
    except InvalidOption as error:
        raise SystemExit(f"parse_output: --{error.field}: {error.message}") from None
    except OSError as error:
        raise SystemExit(f"parse_output: {error}") from None
