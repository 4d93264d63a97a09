import json
import random
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g4jax.chat.events import Content, ToolCallArguments, ToolCallEnd, ToolCallStart, collect
from g4jax.chat.output import OutputParser
from g4jax.chat.template import ChatTemplate, shipped_source
from g4jax.chat.tokenizer import SPELLINGS
from g4jax.testing.byte_tokenizer import byte_tokenizer
from scripts.parse_output import PROMPTS, Case

TOKENIZER = byte_tokenizer()
LINES = (Path(__file__).parents[1] / "data" / "parser_cases.jsonl").read_text().splitlines()
CASES = [json.loads(line) for line in LINES]
TOOLS = [
    {"type": "function", "function": {"name": "f", "parameters": {"properties": {"s": {"type": "string"}}}}},
    {"type": "function", "function": {"name": "g"}},
]


def parser(prompt=PROMPTS["plain"], **kwargs):
    return OutputParser(TOKENIZER, prompt_ids=TOKENIZER.encode_rendered(prompt), **kwargs)


def parse(parser, pieces):
    events = [event for piece in pieces for event in parser.feed(piece)]
    return collect(events + parser.finish())


def random_cuts(ids, seed):
    rng = random.Random(seed)
    edges = sorted(rng.choices(range(len(ids) + 1), k=rng.randrange(1, 12)))
    return [ids[a:b] for a, b in zip([0, *edges], [*edges, len(ids)], strict=True)]


def cuttings(ids):
    return [[ids], [[i] for i in ids], *[random_cuts(ids, seed) for seed in range(4)]]


def seen(message):
    """A message in the words of the cases; trailing blanks do not count."""
    calls = [{"name": c.name, "arguments": json.loads(c.arguments)} for c in message.tool_calls]
    reasoning = message.reasoning.rstrip() if message.reasoning else None
    return {"content": message.content, "reasoning_content": reasoning or None, "tool_calls": calls}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_cases_however_they_are_cut(case):
    expected_all = case["expected"]
    expected = {key: expected_all[key] for key in ("content", "reasoning_content", "tool_calls")}
    accepted = [expected, expected | expected_all.get("alternative", {})]
    given = msgspec.convert(case, Case)
    for pieces in cuttings(given.ids(TOKENIZER)):
        reader = given.parser(TOKENIZER)
        message = parse(reader, pieces)
        assert seen(message) in accepted
        if not message.tool_calls and "incomplete_call" in expected_all:
            assert [call.name for call in message.unfinished] == [expected_all["incomplete_call"]]
        if "finish_reason" in expected_all:
            assert reader.finish_reason(given.engine_reason(TOKENIZER)) == expected_all["finish_reason"]


NOISE = st.lists(
    st.sampled_from(sorted(SPELLINGS.values()))
    | st.sampled_from(
        ["call:f", "call:g", "{", "}", "[", "]", "(", ")", ":", ",", "s", "x", "thought\n", "1", " ", "\n"]
    )
    | st.sampled_from(['"', "'", "\\", "=", "日", "🌍", "null", "response\n"]),
    max_size=40,
)


@settings(deadline=None, max_examples=100)
@given(NOISE, st.integers(0, 2**16), st.sampled_from(sorted(PROMPTS)), st.booleans())
def test_any_output_is_read_alike_however_it_is_cut(words, seed, prompt, parallel):
    ids = [i for word in words for i in TOKENIZER.encode_rendered(word)]

    def read(pieces):
        message = parse(parser(PROMPTS[prompt], tools=TOOLS, parallel_tool_calls=parallel), pieces)
        for call in message.tool_calls + message.unfinished:
            call.id = ""
        return message

    whole = read([ids])
    assert read([[i] for i in ids]) == whole and read(random_cuts(ids, seed)) == whole
    assert all(isinstance(json.loads(call.arguments), dict) for call in whole.tool_calls)
    spelled = {SPELLINGS[name] for name in SPELLINGS}
    assert not any(s in (whole.content or "") + (whole.reasoning or "") for s in spelled)


def test_arguments_stream_while_the_string_is_written():
    reader = parser(tools=TOOLS)
    events = [e for i in TOKENIZER.encode_rendered('<|tool_call>call:f{s:<|"|>ab') for e in reader.feed([i])]
    assert isinstance(events[0], ToolCallStart) and (events[0].index, events[0].name) == (0, "f")
    assert [e.text for e in events[1:]] == ["{", '"s":"', "a", "b"]
    closing = TOKENIZER.encode_rendered('<|"|>}<tool_call|>')
    assert reader.feed(closing) == [ToolCallArguments(0, '"}'), ToolCallEnd(0)]
    assert reader.finish() == [] and reader.finish_reason("stop") == "tool_calls"


def test_calls_have_ids_of_their_own_and_indices_in_order():
    reader = parser(tools=TOOLS)
    ids = TOKENIZER.encode_rendered("<|tool_call>call:g{}<tool_call|><|tool_call>call:f{}call:g{}<tool_call|>")
    starts = [e for e in reader.feed(ids) if isinstance(e, ToolCallStart)]
    assert [(s.index, s.name) for s in starts] == [(0, "g"), (1, "f"), (2, "g")]
    assert len({s.id for s in starts}) == 3


def test_one_call_is_enough_without_parallel_calls():
    reader = parser(tools=TOOLS, parallel_tool_calls=False)
    assert not reader.wants_stop
    reader.feed(TOKENIZER.encode_rendered("<|tool_call>call:g{}"))
    assert reader.wants_stop and reader.finish_reason("abort") == "tool_calls"
    assert reader.feed(TOKENIZER.encode_rendered("call:f{}<tool_call|><|tool_call>call:f{}<tool_call|>")) == []


@pytest.mark.parametrize(
    "text, engine, reason",
    [
        ("<|tool_call>call:g{}<tool_call|>", "stop", "tool_calls"),
        ("<|tool_call>call:g{}", "length", "length"),
        ("<|tool_call>call:g{}<tool_call|><|tool_call>call:g{a:", "stop", "length"),
        ("<|tool_call>call:g{", "length", "length"),
        ("Hi", "stop", "stop"),
    ],
)
def test_finish_reason_says_what_was_produced(text, engine, reason):
    reader = parser(tools=TOOLS)
    parse(reader, [TOKENIZER.encode_rendered(text)])
    assert reader.finish_reason(engine) == reason


def test_a_call_that_the_prompt_began_is_continued():
    reader = parser(PROMPTS["plain"] + "<|tool_call>call:f{", tools=TOOLS)
    message = parse(reader, [TOKENIZER.encode_rendered('s:<|"|>x<|"|>}<tool_call|>')])
    assert seen(message)["tool_calls"] == [{"name": "f", "arguments": {"s": "x"}}]


@pytest.mark.parametrize("variant", ["small", "large"])
@pytest.mark.parametrize("thinking", [True, False])
def test_the_rendered_prompt_decides_where_the_output_begins(variant, thinking):
    template = ChatTemplate(shipped_source(variant), TOKENIZER)
    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "<|channel>thought\n"},
    ]
    for end in (1, 3):
        prompt_ids = template.encode(messages[:end], enable_thinking=thinking)
        message = parse(OutputParser(TOKENIZER, prompt_ids=prompt_ids), [TOKENIZER.encode_rendered("a<channel|>b")])
        opened = thinking and end == 3
        assert (message.reasoning, message.content) == (("a", "b") if opened else (None, "ab"))


def test_reasoning_can_be_shown_as_content():
    message = parse(parser(parse_reasoning=False), [TOKENIZER.encode_rendered("<|channel>thought\na\n<channel|>b")])
    assert (message.reasoning, message.content) == (None, "ab")


def test_the_newline_before_the_end_of_a_channel_is_not_reasoning():
    message = parse(parser(), [TOKENIZER.encode_rendered("<|channel>thought\na\n\nb\n<channel|>\nc")])
    assert (message.reasoning, message.content) == ("a\n\nb", "\nc")


def test_plain_text_is_not_held_back():
    reader = parser(tools=TOOLS)
    assert [reader.feed([i]) for i in TOKENIZER.encode_text("ab c")] == [[Content(c)] for c in ("a", "b", " ", "c")]


BEGIN = "<|tool_call>call:f{s:"
UNITS = ["[", "{a:", "x,", "x:", '"', "'", '"" ', " ", "}", "x ", 'a:<|"|>x<|"|>,', "call:f{"]
REPEATED = [(BEGIN, unit) for unit in UNITS] + [(BEGIN + '""', " "), ("", "\n"), ("", "call:"), ("thought\n", "x")]


@pytest.mark.parametrize(
    "begin, unit", [*REPEATED, ("<|channel>", "\n"), ("<|tool_call>", "x"), (BEGIN + '<|"|>', "}")]
)
def test_time_is_linear_and_nothing_breaks(begin, unit):
    def seconds(n):
        reader, ids = parser(tools=TOOLS), TOKENIZER.encode_rendered(begin + unit * n)
        start = time.process_time()
        parse(reader, [ids[i : i + 3] for i in range(0, len(ids), 3)])
        return time.process_time() - start

    seconds(10)
    assert seconds(1000) < 16 * max(seconds(200), 0.01)  # five times the text; quadratic time is 25 times
