"""The API does what its own description says, whatever it is sent."""

import multiprocessing

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from g4jax.testing.fake_engine import FakeEngine
from server.app import create_app
from server.engine_client import EngineClient
from tests.server.conftest import chat_format, media_reader, model_info, running

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 15
HANGS_S = 10

client = EngineClient(multiprocessing.Pipe()[0])
DOCUMENT = create_app(client, chat_format(), model_info(), media_reader()).openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.fixture(scope="module")
def served():
    with running(FakeEngine(max_model_len=256, tokens_per_step=64)) as server:
        yield server


@SCHEMA.parametrize()
@hypothesis.settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None)
def test_every_operation_keeps_to_the_description(case, served):
    answer = case.call(base_url=served.url, timeout=HANGS_S)
    case.validate_response(answer, checks=CHECKS)


def test_the_description_is_whole(served):
    assert httpx.get(f"{served.url}/openapi.json").json() == DOCUMENT
    operations = [(path, method, each) for path, item in DOCUMENT["paths"].items() for method, each in item.items()]
    without_body = {path for path, method, each in operations if method == "post" and "requestBody" not in each}
    assert without_body == {"/flush_cache", "/v1/responses/{response_id}/cancel"}
    for _, _, each in operations:
        assert {"200", "400", "401", "404", "503"} <= each["responses"].keys() and "422" not in each["responses"]


def test_all_references_lead_somewhere():
    schemas = DOCUMENT["components"]["schemas"]

    def references(value):
        if isinstance(value, dict):
            yield from [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            value = list(value.values())
        if isinstance(value, list):
            for each in value:
                yield from references(each)

    found = {reference.removeprefix("#/components/schemas/") for reference in references(DOCUMENT)}
    assert "ChatRequest.Message" in found and found <= schemas.keys()


def test_docs_page(served):
    page = httpx.get(f"{served.url}/docs")
    assert page.status_code == 200 and "/openapi.json" in page.text
