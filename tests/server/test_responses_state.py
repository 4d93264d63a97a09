"""Responses that the server remembers."""

import openai
import pytest

from server.responses.answer import MessageItem, OutputText, Response
from server.responses.schemas import MessageItem as InputMessage
from server.responses.store import ResponseStore
from tests.server.conftest import TOKENIZER
from tests.server.test_responses_api import ANSWERS, WEATHER, ask, prompt

__all__ = ["ANSWERS"]


def test_conversation_goes_on(served):
    first = ask(served, "My name is Ann.")
    second = ask(served, "think", previous_response_id=first.id)
    ask(served, "Who am I?", previous_response_id=second.id)
    turns = prompt(served).split("<|turn>")[1:]
    assert [turn.partition("<turn|>")[0] for turn in turns] == [
        "user\nMy name is Ann.",
        "model\nHello!",
        "user\nthink",
        "model\nIt is four.",
        "user\nWho am I?",
        "model\n",
    ]


def test_stream_is_remembered_too(served):
    *_, last = served.client.responses.create(model="nano", input="My name is Ann.", stream=True)
    answer = ask(served, "Who am I?", previous_response_id=last.response.id)
    assert "Ann" in prompt(served) and answer.previous_response_id == last.response.id


def test_call_goes_on(served):
    first = ask(served, "a call", tools=[WEATHER])
    result = {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "sunny"}
    answer = ask(served, [result], tools=[WEATHER], previous_response_id=first.id)
    assert answer.output_text == "It is sunny." and "response:weather{" in prompt(served)


def test_instructions_are_not_carried_over(served):
    first = ask(served, "hello", instructions="Speak like a pirate.")
    ask(served, "hello", previous_response_id=first.id)
    assert "pirate" not in prompt(served)
    ask(served, "hello", previous_response_id=first.id, instructions="Be brief.")
    assert prompt(served).count("<|turn>system") == 1 and "Be brief." in prompt(served)


def test_retrieve_and_delete(served):
    answer = ask(served, "think")
    assert served.client.responses.retrieve(answer.id) == answer
    served.client.responses.delete(answer.id)
    for call in (served.client.responses.retrieve, served.client.responses.delete, served.client.responses.cancel):
        with pytest.raises(openai.NotFoundError):
            call(answer.id)
    with pytest.raises(openai.NotFoundError):
        ask(served, "hello", previous_response_id=answer.id)


def test_unstored(served):
    answer = ask(served, "hello", store=False)
    with pytest.raises(openai.NotFoundError):
        served.client.responses.retrieve(answer.id)


def test_cancel(served):
    answer = ask(served, "hello")
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        served.client.responses.cancel(answer.id)


def test_item_reference(served):
    first = ask(served, "two calls", tools=[WEATHER])
    items = [{"role": "user", "content": "two calls"}]
    items += [{"type": "item_reference", "id": item.id} for item in first.output]
    ask(served, items, tools=[WEATHER])
    assert "<|channel>thought\nHm.\n<channel|>Well.<|tool_call>call:weather{" in prompt(served)
    served.client.responses.delete(first.id)
    with pytest.raises(openai.BadRequestError, match="not found"):
        ask(served, items, tools=[WEATHER])


def test_input_items(served):
    first = ask(served, "hello", instructions="Be brief.")
    second = ask(served, [{"role": "user", "content": [{"type": "input_text", "text": "think"}]}, *first.output])
    third = ask(served, "bye", previous_response_id=second.id)
    listed = served.client.responses.input_items.list(third.id, order="asc")
    texts = [getattr(item.content[0], "text", None) for item in listed.data]
    assert texts == ["think", "Hello!", "Two and two.", "It is four.", "bye"]
    newest = list(served.client.responses.input_items.list(third.id, limit=2))
    assert [item.id for item in newest] == [item.id for item in reversed(listed.data)]
    for query in ({"limit": 0}, {"after": "msg_unknown"}, {"order": "any"}):
        with pytest.raises(openai.BadRequestError):
            served.client.responses.input_items.list(third.id, **query)


def _response(name: str) -> Response:
    echoes = dict.fromkeys(("instructions", "max_output_tokens", "max_tool_calls", "previous_response_id"))
    echoes |= dict.fromkeys(("prompt_cache_key", "safety_identifier", "user"))
    lists = {"metadata": {}, "reasoning": {}, "text": {}, "tools": [], "tool_choice": "auto", "top_logprobs": 0}
    output = [MessageItem(f"msg_{name}", [OutputText("x" * 1000)])]
    numbers = {"temperature": 1.0, "top_p": 1.0, "store": True, "parallel_tool_calls": True}
    return Response(id=name, created_at=1, model="nano", output=output, **echoes, **lists, **numbers)


@pytest.mark.parametrize("bounds", [{"max_responses": 2}, {"max_bytes": 6000}])
def test_store_forgets_what_was_used_least(bounds):
    store = ResponseStore(**bounds)
    for name in ("a", "b"):
        store.keep(_response(name), [InputMessage(role="user", content="y" * 500)])
    store.get("a")
    store.keep(_response("c"), [])
    with pytest.raises(Exception, match="not found"):
        store.get("b")
    assert len(store.conversation("a")) == 2 and len(store.conversation("c")) == 1
    store.delete("a")
    store.delete("c")
    assert store._size == 0 and not store._items


def test_thoughts_of_earlier_turns_stay_out_of_the_prompt(served):
    first = ask(served, "think")
    ask(served, "hello", previous_response_id=first.id)
    assert TOKENIZER.control.channel_open not in served.engine.requests[-1].prompt_ids
