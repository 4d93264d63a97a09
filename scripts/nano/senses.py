"""Conversations about pictures, videos and sounds: several questions about one, or one question about two pictures."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from scripts.nano import hearing, seeing, talk, tasks, watching
from scripts.nano.seeing import Asked
from scripts.nano.tasks import Message, Reply, Sample, Scene
from scripts.nano.words import Split

JUDGED = (*seeing.BY_ABILITY, "image_two", "video", *hearing.BY_ABILITY)
"""Abilities with one right answer."""

Part = dict[str, Any]
THOUGHTS = {"image": "I look at it.", "video": "I watch it.", "audio": "I listen to it."}
TWO_SHARE, VIDEO_SHARE = 0.12, 0.1
"""Of the conversations about something to see: two pictures, a video."""

ANOTHER_TURN = 0.1
"""How often a question about a picture or a sound is followed by one about something else."""


def any_image_sample(rng: random.Random) -> Sample:
    """For training: a picture with one to four questions, two pictures, or a video."""
    draw = rng.random()
    if draw < TWO_SHARE:
        return _two(rng, thinking=rng.random() < 0.2)
    if draw < TWO_SHARE + VIDEO_SHARE:
        part, asked = _video(rng)
        return _conversation(rng, "video", part, rng.sample(asked, len(asked)))
    view = rng.choices(list(seeing.VIEWS), list(seeing.VIEWS.values()))[0]
    image, answers = view(rng)
    return _conversation(rng, "image", {"type": "image", "image": image}, _chosen(rng, answers, 4))


def any_audio_sample(rng: random.Random) -> Sample:
    """For training: a sound with one to three questions."""
    listen = rng.choices(list(hearing.LISTENS), list(hearing.LISTENS.values()))[0]
    samples, answers = _short_enough(rng, listen)
    part = {"type": "audio", "audio": (samples, hearing.RATE)}
    return _conversation(rng, "audio", part, _chosen(rng, answers, 3))


def sample(rng: random.Random, ability: str) -> Sample:
    """A single question of one ability."""
    thinking = rng.random() < 0.2
    if ability == "image_two":
        return _two(rng, thinking)
    if ability == "video":
        part, asked = _video(rng)
        return _sample(rng, ability, [part], rng.choice(asked), thinking)
    if ability in seeing.BY_ABILITY:
        image, answers = rng.choice(seeing.BY_ABILITY[ability])(rng)
        part: Part = {"type": "image", "image": image}
    else:
        samples, answers = _short_enough(rng, rng.choice(hearing.BY_ABILITY[ability]))
        part = {"type": "audio", "audio": (samples, hearing.RATE)}
    return _sample(rng, ability, [part], rng.choice(answers[ability]), thinking)


def media_parts(messages: Sequence[Message]) -> Iterator[Part]:
    """The pictures, videos and sounds of a conversation, in order."""
    for message in messages:
        if isinstance(message["content"], list):
            yield from (part for part in message["content"] if part["type"] != "text")


def _video(rng: random.Random) -> tuple[Part, list[Asked]]:
    frames, asked = watching.film(rng)
    return {"type": "video", "video": frames, "fps": rng.choice((24.0, 24.0, 2.0, 1.0, 0.5, 0.1))}, asked


def _short_enough(rng: random.Random, listen: hearing.Listen) -> hearing.Clip:
    while True:
        samples, answers = listen(rng)
        if len(samples) <= hearing.LONGEST_SECONDS * hearing.RATE:
            return samples, answers


def _chosen(rng: random.Random, answers: dict[str, list[Asked]], most: int) -> list[Asked]:
    pool = [asked for ability in answers for asked in answers[ability]]
    return rng.sample(pool, min(len(pool), most))


def _two(rng: random.Random, thinking: bool) -> Sample:
    """Two pictures, a question about one of them."""
    views = [rng.choice((seeing.one_figure, seeing.one_figure, seeing.number))(rng) for _ in range(2)]
    which = rng.randrange(2)
    answers = views[which][1]
    ability = rng.choice([name for name in ("image_describe", "image_colour", "image_number") if name in answers])
    answer = rng.choice(answers[ability])[1]
    words = {
        "image_describe": "What is in the {n} {p}?|What do you see in the {n} {p}?|Describe the {n} {p}.",
        "image_colour": "Which colour is in the {n} {p}?|What color does the {n} {p} show?",
        "image_number": "Which number is in the {n} {p}?|Read the number in the {n} {p}.",
    }[ability]
    question = rng.choice(words.split("|")).format(
        n=("first", "second")[which], p=rng.choice(["picture", "image", "photo"])
    )
    parts = [{"type": "image", "image": image} for image, _ in views]
    return _sample(rng, "image_two", parts, (question, answer), thinking)


def _conversation(rng: random.Random, ability: str, part: Part, asked: list[Asked]) -> Sample:
    """All questions in turn, or only the first of them with a thought."""
    if rng.random() < 0.2:
        return _sample(rng, ability, [part], asked[0], thinking=True)
    first = _sample(rng, ability, [part], asked[0], thinking=False)
    scene = Scene(rng, "train", first.messages)
    reply = first.reply
    for question, answer in asked[1:]:
        scene.answer(reply)
        if rng.random() < ANOTHER_TURN:
            scene.answer(_plain(scene, "train"))
        scene.user(question)
        reply = Reply(answer)
    return Sample(ability, reply, scene.messages)


def _plain(scene: Scene, split: Split) -> Reply:
    if scene.rng.random() < 0.5:
        return tasks.arithmetic_turn(scene)
    question, answer = talk.small_talk(scene.rng, split)
    scene.user(question)
    return Reply(answer)


def _sample(rng: random.Random, ability: str, media: list[Part], asked: Asked, thinking: bool) -> Sample:
    question = {"type": "text", "text": asked[0]}
    content = [*media, question] if rng.random() < 0.7 else [question, *media]
    messages: list[Message] = [{"role": "user", "content": content}]
    if rng.random() < 0.15:
        messages.insert(0, {"role": "system", "content": rng.choice(talk.SYSTEM_PROMPTS)})
    thought = THOUGHTS[media[0]["type"]] if thinking else None
    return Sample(ability, Reply(asked[1], thought=thought), messages, thinking=thinking)
