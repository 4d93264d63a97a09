"""docs/api.md is true: its tests are there, and no address, parameter or check is left out."""

import multiprocessing
import re
from pathlib import Path
from typing import get_args

import pytest

from server.app import create_app
from server.conversation_schemas import Message
from server.engine_client import EngineClient
from server.media_schemas import ImageUrl, MediaPart
from server.responses.schemas import ImagePart
from server.schemas import ChatRequest, CompletionRequest, StreamOptions
from server.transcription.schemas import TranscriptionForm, TranslationForm
from tests.server.conftest import chat_format, media_reader, model_info

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()
SECTIONS = dict(re.findall(r"^## \d\. ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
NAMED = sorted(set(re.findall(r"`(?:tests/(\w+): )?(test_\w+\.py)::(test_\w+)`", PAGE)))


@pytest.mark.parametrize(("folder", "file", "name"), NAMED, ids=["::".join(each[1:]) for each in NAMED])
def test_named_test_is_there(folder, file, name):
    source = (ROOT / "tests" / (folder or "server") / file).read_text()
    assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE)


def test_every_address_is_listed():
    app = create_app(EngineClient(multiprocessing.Pipe()[0]), chat_format(), model_info(), media_reader())
    listed = set(re.findall(r"[` ](/[\w/{}-]+)`", SECTIONS["Addresses"]))
    assert set(app.openapi()["paths"]) <= listed


@pytest.mark.parametrize("body", [ChatRequest, CompletionRequest, StreamOptions])
def test_every_parameter_is_listed(body):
    words = set(re.findall(r"\w+", SECTIONS["Parameters"]))
    assert set(body.model_fields) <= words


@pytest.mark.parametrize("kind", [*get_args(MediaPart), ImageUrl, ImagePart, TranscriptionForm, TranslationForm])
def test_every_part_and_form_is_listed(kind):
    words = set(re.findall(r"\w+", SECTIONS["Images, videos and sound"]))
    assert set(kind.model_fields) - {"type"} <= words
    assert "type" not in kind.model_fields or get_args(kind.model_fields["type"].annotation)[0] in words


def test_every_field_of_a_thought_is_listed():
    names = {name for name in Message.model_fields if name.startswith("reasoning")}
    assert names <= set(re.findall(r"\w+", SECTIONS["Parameters"]))


def test_every_check_has_a_test_or_a_reason():
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| (.+) \|$", SECTIONS["Checks of OpenAI's clients"], re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 169))
    assert all("::" in held or held.startswith("does not apply: ") for _, held in rows)
