"""Where the answer of a chat ends, and what is said about it."""

import openai
import pytest

from g4jax.testing.fake_engine import DEAD_END, FakeEngine
from tests.server.chats import ask, joined, user, whole
from tests.server.conftest import END, ids, running

ANSWERS = {
    "count": "one two three four<turn|>",
    "endless": "abc",
}


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_limit(served, limit):  # row 2
    answer = ask(served, "endless", **{limit: 5})
    usage = answer.usage
    assert (usage.completion_tokens, answer.choices[0].finish_reason) == (5, "length")
    assert usage.total_tokens == usage.prompt_tokens + 5 and answer.choices[0].matched_stop is None


@pytest.mark.parametrize("stream", [False, True])
def test_end_of_the_turn(served, stream):  # rows 4, 8
    answer = ask(served, "count", stream=stream)
    (choice,) = (joined if stream else whole)(answer).values()
    assert (choice["content"], choice["finish"]) == ("one two three four", ["stop"])
    if not stream:
        assert answer.choices[0].matched_stop == END


@pytest.mark.parametrize("stop", [" three", [" three"], ["zebra", " thr"], "o thr"])
@pytest.mark.parametrize("stream", [False, True])
def test_stop_text_is_not_shown(served, stop, stream):  # rows 5, 6, 54
    (choice,) = (joined if stream else whole)(ask(served, "count", stop=stop, stream=stream)).values()
    matched = next(text for text in ([stop] if isinstance(stop, str) else stop) if text in ANSWERS["count"])
    assert (choice["content"], choice["finish"]) == ("one two three four".partition(matched)[0], ["stop"])
    if not stream:
        assert ask(served, "count", stop=stop).choices[0].matched_stop == matched


def test_stop_texts_stay_in_their_request(served):  # row 7
    assert ask(served, "count", stop="two").choices[0].message.content == "one "
    assert ask(served, "count").choices[0].message.content == "one two three four"


def test_stop_token_id(served):
    (letter,) = ids("w")
    choice = ask(served, "count", extra_body={"stop_token_ids": [letter]}).choices[0]
    assert (choice.message.content, choice.matched_stop) == ("one t", letter)


def test_ignore_eos(served):  # row 9
    answer = ask(served, "count", max_tokens=40, extra_body={"ignore_eos": True})
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (40, "length")


def test_choices_are_counted_together(served):  # row 10
    answer = ask(served, "count", n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage.completion_tokens == 3 * len(ids(ANSWERS["count"]))


@pytest.mark.parametrize("told", [0, 4])
def test_answer_that_cannot_go_on_is_an_error(told):  # row 118
    with running(FakeEngine(lambda request: [*ids("one two")[:told], DEAD_END])) as server:
        with pytest.raises(openai.InternalServerError, match="nothing may follow") as error:
            ask(server, "count", n=2)
        assert error.value.code == "grammar_dead_end"
        with pytest.raises(openai.InternalServerError):
            server.client.completions.create(model="nano", prompt="count")
        assert server.healthy() and not server.engine.has_work


def test_stream_that_cannot_go_on_ends_with_an_error():  # row 52
    with running(FakeEngine(lambda request: [*ids("one two"), DEAD_END], step_s=0.005)) as server:
        reasons, text = [], ""
        with pytest.raises(openai.APIError, match="nothing may follow"):
            for chunk in server.client.chat.completions.create(model="nano", messages=user("count"), stream=True):
                text += chunk.choices[0].delta.content
                reasons.append(chunk.choices[0].finish_reason)
        assert "one two".startswith(text) and text and set(reasons) == {None}
        assert server.healthy() and not server.engine.has_work
