"""An answer is read alike however its ids are cut, and what is streamed of it adds up."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g4jax.chat.events import Content, Event, Reasoning, ToolCallArguments, ToolCallEnd, ToolCallStart, collect
from g4jax.chat.output import OutputParser
from g4jax.chat.tokenizer import Tokenizer
from g4jax.engine.checkpoint import NANO
from g4jax.testing.byte_tokenizer import byte_tokenizer
from scripts.parse_output import Case

TOKENIZERS = {"byte": byte_tokenizer(), "nano": Tokenizer(NANO)}
LINES = (Path(__file__).parents[1] / "data" / "parser_cases.jsonl").read_text().splitlines()
CASES = [msgspec.json.decode(line, type=Case) for line in LINES]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"s": {"type": "string"}}}}}]
# Gemma's vocabulary writes a blank as U+2581, so that character itself cannot be told from one.
LETTERS = st.sampled_from("aé日🌍👩🏽 \u200d\n{}[]:,\"'\\<|>") | st.characters(
    exclude_categories=["Cs"], exclude_characters="\u2581"
)
TEXT = st.text(LETTERS, max_size=12)
CUTS = st.lists(st.integers(0, 200), max_size=12)


def cut(ids: list[int], edges: list[int]) -> list[list[int]]:
    edges = sorted(min(edge, len(ids)) for edge in edges)
    return [ids[a:b] for a, b in zip([0, *edges], [*edges, len(ids)], strict=True)]


def read(parser: OutputParser, pieces: list[list[int]]) -> list[Event]:
    return [event for piece in pieces for event in parser.feed(piece)] + parser.finish()


def known(events: list[Event]):
    """The message without the ids of its calls, which are new each time."""
    message = collect(events)
    for call in message.tool_calls + message.unfinished:
        call.id = ""
    return message


def check_stream(events: list[Event]) -> None:
    """No event is empty or holds half a character; a call starts, goes on and ends, and then its JSON is whole."""
    arguments: dict[int, str] = {}
    ended: set[int] = set()
    for event in events:
        match event:
            case Content(text) | Reasoning(text):
                assert text and "\ufffd" not in text
            case ToolCallStart(index, call_id, name):
                assert index == len(arguments) and call_id.startswith("call_") and name
                arguments[index] = ""
            case ToolCallArguments(index, text):
                assert text and "\ufffd" not in text and index not in ended
                arguments[index] += text
            case ToolCallEnd(index):
                assert isinstance(json.loads(arguments[index]), dict)
                ended.add(index)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@settings(deadline=None, max_examples=400)
@given(st.sampled_from(CASES), CUTS)
def test_cases_cut_anywhere(tokenizer, case, edges):
    tokenizer = TOKENIZERS[tokenizer]
    ids = case.ids(tokenizer)
    whole = read(case.parser(tokenizer), [ids])
    events = read(case.parser(tokenizer), cut(ids, edges))
    assert known(events) == known(whole)
    check_stream(events)
    check_stream(whole)


@pytest.mark.parametrize("case", CASES, ids=[json.loads(line)["id"] for line in LINES])
def test_vocabulary_does_not_matter(case):
    read_by = [known(read(case.parser(each), [case.ids(each)])) for each in TOKENIZERS.values()]
    assert read_by[0] == read_by[1]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@settings(deadline=None, max_examples=200)
@given(TEXT, TEXT, TEXT, TEXT, CUTS)
def test_any_text_comes_through_unchanged(tokenizer, thought, content, argument, more, edges):
    """Also where a cut goes through a character, and where the text spells control tokens."""
    tokenizer = TOKENIZERS[tokenizer]
    control, text = tokenizer.control, tokenizer.encode_text
    ids = [control.channel_open, *text(f"thought\n.{thought}."), control.channel_close, *text(f".{content}<|turn>")]
    ids += [control.call_open, *text("call:f{s:"), control.quote, *text(argument), control.quote, *text("}")]
    ids += [control.call_close, *text(more), control.turn_close]
    events = read(OutputParser(tokenizer, tools=TOOLS), cut(ids, edges))
    message = collect(events)
    assert message.reasoning == f".{thought}." and message.content == f".{content}<|turn>{more}"
    assert [json.loads(call.arguments) for call in message.tool_calls] == [{"s": argument}]
    check_stream(events)


@pytest.mark.parametrize("text", ["語語語", "🌍👩🏽‍🚀", "naïve ✓"])
def test_character_cut_over_tokens_comes_whole(text):
    tokenizer = TOKENIZERS["byte"]
    ids = tokenizer.encode_text(text)
    assert len(ids) > len(text), "its characters are several tokens each"
    parser = OutputParser(tokenizer)
    shown = [event.text for token in ids for event in parser.feed([token]) if isinstance(event, Content)]
    assert shown == list(text)
