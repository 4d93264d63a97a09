"""logit_bias and cache_salt: what the engine gets of them, and what is refused."""

import openai
import pytest

from tests.server.chats import ask
from tests.server.conftest import TOKENIZER

ANSWERS = {"count": "one<turn|>"}


@pytest.mark.parametrize("bias", [{"5": 100, "7": -100, "9": 0.5}, {}, None])  # row 97
def test_bias_reaches_the_engine(served, bias):
    expected = tuple((int(key), float(value)) for key, value in (bias or {}).items())
    ask(served, "count", logit_bias=bias)
    assert served.engine.requests[-1].params.logit_bias == expected
    served.client.completions.create(model="nano", prompt="count", logit_bias=bias)
    assert served.engine.requests[-1].params.logit_bias == expected


@pytest.mark.parametrize(
    ("bias", "named"),
    [
        ({"600": 1, "-1": 1, "5": 1}, ["'600'", "'-1'", str(TOKENIZER.vocab_size)]),  # row 98
        ({"hello": 1, "1.5": 1, "5": 1, "": 1}, ["'hello'", "'1.5'", "''"]),  # row 99
        ({"9" * 5000: 1}, ["'999"]),
        ({"5": "much"}, ["5", "much"]),  # row 100
        ({"5": None}, ["5"]),
        ({"5": True}, ["5"]),
        ({"5": 101}, ["101"]),
        ({"5": -100.5}, ["-100.5"]),
        ([5], []),
    ],
)
def test_refusals_name_every_key(served, bias, named):
    with pytest.raises(openai.BadRequestError) as error:
        ask(served, "count", logit_bias=bias)
    assert error.value.param == "logit_bias" and all(name in error.value.body["message"] for name in named)
    assert len(error.value.body["message"]) < 300 and "'5'" not in error.value.body["message"]
    with pytest.raises(openai.BadRequestError):
        served.client.completions.create(model="nano", prompt="count", logit_bias=bias)
    assert served.healthy()


def test_cache_salt(served):
    ask(served, "count", extra_body={"cache_salt": "mine"})
    assert served.engine.requests[-1].cache_salt == b"mine"
    with pytest.raises(openai.BadRequestError) as error:
        ask(served, "count", extra_body={"cache_salt": ""})
    assert error.value.param == "cache_salt"
