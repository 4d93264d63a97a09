"""scripts/parse_output.py, line by line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from g4jax.chat.tokenizer import Tokenizer
from g4jax.engine.checkpoint import NANO
from scripts.parse_output import parse_line

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "data" / "parser_cases.jsonl"
CASES = [json.loads(line) for line in FILE.read_text().splitlines()]
TOKENIZER = Tokenizer(NANO)
CALL = '<|tool_call>call:f{s:<|"|>x<|"|>}<tool_call|>'
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def parsed(text: str, **more) -> dict:
    return parse_line(json.dumps({"text": text, "tools": TOOLS} | more), TOKENIZER)


def without_ids(answer: dict) -> dict:
    return {**answer, "tool_calls": [call["function"] for call in answer["tool_calls"]]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_cases(case):
    expected = case["expected"]
    answer = parse_line(json.dumps(case), TOKENIZER)
    functions = [call["function"] for call in answer["tool_calls"]]
    seen = {
        "content": answer["content"],
        "reasoning_content": (answer["reasoning_content"] or "").rstrip() or None,
        "tool_calls": [{"name": each["name"], "arguments": json.loads(each["arguments"])} for each in functions],
    }
    wanted = {name: expected[name] for name in seen}
    assert seen in (wanted, wanted | expected.get("alternative", {}))
    assert answer["finish_reason"] == expected.get("finish_reason", answer["finish_reason"])
    assert (answer["finish_reason"] == "tool_calls") is bool(functions)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_chunks_change_nothing(case):
    text = case["text"]
    answer = without_ids(parse_line(json.dumps(case | {"chunks": None}), TOKENIZER))
    for chunks in (list(text), [text[:7], text[7:]], [text, ""], ["unlike the text"]):
        assert without_ids(parse_line(json.dumps(case | {"chunks": chunks}), TOKENIZER)) == answer


def test_calls_are_openais():
    (call,) = parsed(CALL)["tool_calls"]
    assert call.pop("id").startswith("call_")
    assert call == {"type": "function", "function": {"name": "f", "arguments": '{"s":"x"}'}}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"prompt": "<|channel>thought\n"}, (None, "a", "length")),
        ({"prompt_state": "open_channel"}, (None, "a", "length")),
        ({"prompt": "<|channel>thought\n<channel|>"}, ("a", None, "stop")),
        ({}, ("a", None, "stop")),
    ],
)
def test_prompt_tells_where_the_text_begins(more, expected):
    answer = parsed("a", **more)
    assert (answer["content"], answer["reasoning_content"], answer["finish_reason"]) == expected


def test_what_the_request_said():
    assert parsed(f"a{CALL}", tool_choice="none") == {
        "content": "a",
        "reasoning_content": None,
        "tool_calls": [],
        "finish_reason": "stop",
    }
    assert len(parsed(CALL * 2, parallel_tool_calls=False)["tool_calls"]) == 1
    thought = "<|channel>thought\na<channel|>b"
    assert parsed(thought, reasoning_parser=None)["content"] == "ab"
    assert parsed(thought, token_kinds="spelled out")["content"] == thought


@pytest.mark.parametrize("line", ["nonsense", "[]", "{}", '{"text": 5}', '{"text": "a", "tools": "f"}'])
def test_line_that_is_no_case(line):
    assert parse_line(line, TOKENIZER).keys() == {"error"}


def test_script_reads_a_file_or_standard_input():
    command = [sys.executable, str(ROOT / "scripts" / "parse_output.py")]
    of_file = subprocess.run([*command, str(FILE)], capture_output=True, text=True, check=True).stdout
    of_input = subprocess.run(command, input=FILE.read_text(), capture_output=True, text=True, check=True).stdout
    answers = [[without_ids(json.loads(line)) for line in text.splitlines()] for text in (of_file, of_input)]
    assert len(answers[0]) == len(CASES) and answers[0] == answers[1]
    wrong = subprocess.run([*command, "--model", "nowhere"], capture_output=True, text=True)
    assert wrong.returncode and wrong.stderr.startswith("parse_output: --model: nowhere is not a folder")
