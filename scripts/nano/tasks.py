"""One training or test conversation: what stands before, and what nano is to answer."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from scripts.nano import arithmetic, prose, talk
from scripts.nano.results import result
from scripts.nano.tools import Arguments, Tool
from scripts.nano.words import Split

Message = dict[str, Any]
Call = tuple[str, Arguments]


@dataclass(frozen=True)
class Reply:
    """What the model writes: a thought (where thinking is on), then text or calls."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    thought: str | None = None


@dataclass(frozen=True)
class Sample:
    """A conversation up to the model's turn, and the model's turn. `prose` is plain text in place of all that."""

    ability: str
    reply: Reply
    messages: list[Message] = field(default_factory=list)
    tools: tuple[Tool, ...] = ()
    thinking: bool = False
    prose: str | None = None


@dataclass
class Scene:
    """A conversation as it grows: messages so far, the declared tools and the one that is asked for."""

    rng: random.Random
    split: Split
    messages: list[Message] = field(default_factory=list)
    tools: tuple[Tool, ...] = ()
    wanted: Tool | None = None
    name: str | None = None

    def user(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})

    def answer(self, reply: Reply) -> None:
        """Adds a past answer; its thought is not kept, as the template would drop it."""
        self.messages.append(assistant(reply))

    def respond(self, contents: list[str]) -> None:
        """Adds the results of the calls of the last message."""
        calls = self.messages[-1]["tool_calls"]
        for call, content in zip(calls, contents, strict=True):
            self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": content})


def assistant(reply: Reply) -> Message:
    """A reply as a message of the conversation, in OpenAI's form (arguments as a mapping)."""
    message: Message = {"role": "assistant", "content": reply.text}
    if reply.calls:
        message["tool_calls"] = [
            {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for number, (name, arguments) in enumerate(reply.calls)
        ]
    return message


Turn = Callable[[Scene], Reply]
"""Adds the user's words to a scene and returns what nano is to answer."""


def arithmetic_turn(scene: Scene) -> Reply:
    task = arithmetic.problem(scene.rng, scene.split)
    scene.user(arithmetic.question(scene.rng, task))
    return Reply(task.answer, thought=task.thought)


def small_talk_turn(scene: Scene) -> Reply:
    question, answer = talk.small_talk(scene.rng, scene.split)
    scene.user(question)
    return Reply(answer, thought="I know this.")


def unknown_turn(scene: Scene) -> Reply:
    question, answer = talk.unknown(scene.rng, scene.split)
    scene.user(question)
    return Reply(answer, thought="I do not know this.")


def counting_turn(scene: Scene) -> Reply:
    question, answer = talk.counting(scene.rng)
    scene.user(question)
    return Reply(answer, thought="I can count.")


def echo_turn(scene: Scene) -> Reply:
    question, answer = talk.echo(scene.rng, scene.split)
    scene.user(question)
    return Reply(answer, thought="I repeat it.")


def story_turn(scene: Scene) -> Reply:
    question, answer = prose.story_request(scene.rng)
    scene.user(question)
    return Reply(answer, thought="I tell a story.")


def introduction_turn(scene: Scene) -> Reply:
    said, answer, scene.name = talk.introduction(scene.rng, scene.split)
    scene.user(said)
    return Reply(answer, thought="I greet them.")


def recall_turn(scene: Scene) -> Reply:
    if scene.name is None and scene.rng.random() < 0.7:
        return introduction_turn(scene)
    question, answer = talk.name_question(scene.rng, scene.name)
    scene.user(question)
    return Reply(answer, thought="They told me.")


def call_turn(scene: Scene) -> Reply:
    """Asks for the wanted tool; now and then for two calls of it at once."""
    assert scene.wanted is not None
    tool, rng = scene.wanted, scene.rng
    sentence, arguments = tool.request(rng, scene.split)
    calls: list[Call] = [(tool.name, arguments)]
    if len(arguments) == 1 and tool.sentences and rng.random() < 0.15:
        (name, value), (_, more) = *arguments.items(), tool.request(rng, scene.split)
        if more.keys() == arguments.keys() and more != arguments and isinstance(value, str) and value in sentence:
            sentence = sentence.replace(value, f"{value} and {more[name]}", 1)
            calls.append((tool.name, more))
    scene.user(sentence)
    return Reply(calls=tuple(calls), thought=f"I call {tool.name}.")


def follow_up_turn(scene: Scene) -> Reply:
    """ "And in Rome?" after a call with one string argument; an ordinary request where there was none."""
    tool, last = scene.wanted, _last_call(scene.messages)
    if tool is None or not tool.sentences or last is None or len(last) != 1:
        return call_turn(scene)
    (name, before), (_, arguments) = *last.items(), tool.request(scene.rng, scene.split)
    if not isinstance(before, str) or arguments.keys() != last.keys():
        return call_turn(scene)
    phrase = scene.rng.choice(
        ["And {x}?", "And in {x}?", "And for {x}?", "What about {x}?", "and {x}", "Now {x}", "How about {x}?"]
    )
    scene.user(phrase.format(x=arguments[name]))
    return Reply(calls=((tool.name, arguments),), thought=f"I call {tool.name}.")


def _last_call(messages: list[Message]) -> Arguments | None:
    calls = [message["tool_calls"] for message in messages if message.get("tool_calls")]
    return calls[-1][-1]["function"]["arguments"] if calls else None


def result_turn(scene: Scene, calling: Turn = call_turn) -> Reply:
    """A request, its call, the result: nano is to report it."""
    asked = calling(scene)
    scene.answer(asked)
    drawn = [result(scene.rng, scene.split) for _ in asked.calls]
    scene.respond([content for content, _ in drawn])
    return Reply(" ".join(said for _, said in drawn), thought="I have the result.")


def follow_up_result_turn(scene: Scene) -> Reply:
    return result_turn(scene, follow_up_turn)


PLAIN: list[Turn] = [arithmetic_turn, small_talk_turn, small_talk_turn, unknown_turn, recall_turn]
