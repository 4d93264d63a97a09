"""scripts/render_chat.py, line by line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from g4jax.chat.template import shipped_source
from g4jax.engine.checkpoint import NANO
from scripts.render_chat import render_line

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "data" / "chat_template_cases.jsonl"
CASES = [json.loads(line) for line in FILE.read_text().splitlines()]
HELLO = [{"role": "user", "content": "Hello"}]
PROMPT = "<bos><|turn>user\nHello<turn|>\n<|turn>model\n"


def rendered(messages=HELLO, **more) -> dict[str, str]:
    return render_line(json.dumps({"messages": messages} | more))


@pytest.mark.parametrize("case", CASES, ids=[f"{case['template']}: {case['name']}" for case in CASES])
def test_cases(case):
    assert render_line(json.dumps(case)) == {"rendered": case["rendered"]}


def test_templates_by_path(tmp_path):
    file = tmp_path / "own.jinja"
    file.write_text("{{ bos_token }}{{ messages[0].content }}")
    assert rendered(template=str(file)) == {"rendered": "<bos>Hello"}
    assert rendered(template=str(NANO)) == {"rendered": PROMPT}
    (tmp_path / "large.jinja").write_text(shipped_source("large"))
    empty = "<|channel>thought\n<channel|>"
    own = rendered(template=str(tmp_path / "large.jinja"))
    assert own == rendered(template="large") == {"rendered": PROMPT + empty}


def test_thinking():
    text = rendered(template="large", kwargs={"enable_thinking": True})["rendered"]
    assert "<|think|>" in text and text.endswith("<|turn>model\n")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("nonsense", "JSON is malformed"),
        ("{}", "missing required field `messages`"),
        ('{"messages": [{"content": "x"}]}', "messages[0].role is missing"),
        ('{"messages": [{"role": "user", "content": 5}]}', "messages[0].content must be"),
        ('{"messages": [], "template": "nowhere"}', "nowhere"),
        ('{"messages": [], "kwargs": {"tools": []}}', "kwargs may not hold tools"),
    ],
)
def test_errors(line, error):
    answer = render_line(line)
    assert answer.keys() == {"error"} and error in answer["error"]


def test_template_that_refuses_or_does_not_compile(tmp_path):
    file = tmp_path / "own.jinja"
    for source in ("{{ raise_exception('no') }}", "{% for %}"):
        file.with_name(str(len(source))).write_text(source)
        assert "the chat template" in rendered(template=str(file.with_name(str(len(source)))))["error"]


def test_script_reads_a_file_or_standard_input():
    command = [sys.executable, str(ROOT / "scripts" / "render_chat.py")]
    of_file = subprocess.run([*command, str(FILE)], capture_output=True, text=True, check=True).stdout
    of_input = subprocess.run(command, input=FILE.read_text(), capture_output=True, text=True, check=True).stdout
    assert of_file == of_input
    assert [json.loads(line)["rendered"] for line in of_file.splitlines()] == [case["rendered"] for case in CASES]
