"""Which tasks nano learns, how often, and how they are put together."""

import random

from scripts.nano import prose, talk, tasks
from scripts.nano.tasks import Reply, Sample, Scene, Turn
from scripts.nano.tools import toolbox
from scripts.nano.words import Split

SHARES: dict[str, float] = {
    "arithmetic": 0.09,
    "arithmetic_direct": 0.07,
    "tool_call": 0.33,
    "tool_result": 0.21,
    "small_talk": 0.06,
    "unknown": 0.03,
    "no_call": 0.07,
    "multi_turn": 0.08,
    "counting": 0.015,
    "echo": 0.015,
    "story": 0.01,
    "prose": 0.02,
}
"""Share of the samples by ability. `no_call`: tools are declared and none is wanted."""

JUDGED = (
    "arithmetic",
    "arithmetic_direct",
    "tool_call",
    "tool_result",
    "small_talk",
    "unknown",
    "no_call",
    "multi_turn",
    "counting",
    "echo",
)
"""Abilities with one right answer. `tool_call_everyday_new` (see `sample`) is judged besides."""

_TURNS: dict[str, list[Turn]] = {
    "arithmetic": [tasks.arithmetic_turn],
    "arithmetic_direct": [tasks.arithmetic_turn],
    "tool_call": [tasks.call_turn],
    "tool_result": [tasks.result_turn],
    "small_talk": [tasks.small_talk_turn] * 6 + [tasks.introduction_turn],
    "unknown": [tasks.unknown_turn],
    "no_call": [tasks.small_talk_turn] * 3
    + [tasks.arithmetic_turn] * 3
    + [tasks.unknown_turn, tasks.introduction_turn],
    "counting": [tasks.counting_turn],
    "echo": [tasks.echo_turn],
    "story": [tasks.story_turn],
}

_ARITHMETIC_TOOLS = frozenset("add add_numbers sum plus multiply multiply_numbers product times".split())


def any_sample(rng: random.Random, split: Split) -> Sample:
    """A sample of the whole mixture."""
    return sample(rng, rng.choices(list(SHARES), list(SHARES.values()))[0], split)


def sample(rng: random.Random, ability: str, split: Split) -> Sample:
    """A sample of one ability. `tool_call_everyday_new`: everyday tools that training has never shown."""
    if ability == "prose":
        return Sample(ability, Reply(), prose=prose.text(rng))
    scene = Scene(rng, split)
    if ability.startswith("tool_call") or ability in ("tool_result", "no_call", "multi_turn"):
        _declare(scene, ability)
    if rng.random() < 0.2:
        scene.messages.append({"role": "system", "content": rng.choice(talk.SYSTEM_PROMPTS)})
    reply = _multi_turn(scene) if ability == "multi_turn" else _single_turn(scene, ability)
    return _finished(scene, ability, reply)


def _declare(scene: Scene, ability: str) -> None:
    if ability == "multi_turn" and scene.rng.random() < 0.3:
        return
    while True:
        scene.wanted, declared = toolbox(scene.rng, scene.split, held_out=ability == "tool_call_everyday_new")
        if ability.startswith("tool") or not any(tool.name in _ARITHMETIC_TOOLS for tool in declared):
            break
    scene.tools = tuple(declared)


def _single_turn(scene: Scene, ability: str) -> Reply:
    return scene.rng.choice(_TURNS["tool_call" if ability == "tool_call_everyday_new" else ability])(scene)


def _multi_turn(scene: Scene) -> Reply:
    """One to three finished exchanges, then the one that is asked for."""
    past: list[Turn] = [*tasks.PLAIN, tasks.introduction_turn]
    last: list[Turn] = [*tasks.PLAIN, tasks.recall_turn, tasks.recall_turn]
    if scene.wanted is not None:
        past += [tasks.result_turn] * 4
        last += [
            tasks.call_turn,
            tasks.follow_up_turn,
            tasks.follow_up_turn,
            tasks.follow_up_result_turn,
            tasks.result_turn,
        ]
    for _ in range(scene.rng.choice((1, 1, 2, 2, 3))):
        scene.answer(scene.rng.choice(past)(scene))
    return scene.rng.choice(last)(scene)


def _finished(scene: Scene, ability: str, reply: Reply) -> Sample:
    thinking = {"arithmetic": True, "arithmetic_direct": False}.get(ability, scene.rng.random() < 0.35)
    if thinking and scene.rng.random() < 0.5:
        _keep_thoughts(scene.messages)
    shown = Reply(reply.text, reply.calls, reply.thought if thinking else None)
    return Sample(ability, shown, scene.messages, scene.tools, thinking)


def _keep_thoughts(messages: list[tasks.Message]) -> None:
    """Gives the thought back with a call, as clients should within a tool loop; the template drops it elsewhere."""
    for message in messages:
        if message.get("tool_calls"):
            message["reasoning"] = f"I call {message['tool_calls'][0]['function']['name']}."
