"""Conversations about pictures, videos and sounds: several questions about one, or one question about two pictures."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from scripts.nano import hearing, seeing, talk, tasks, watching
from scripts.nano.seeing import Asked
from scripts.nano.tasks import Message, Reply, Sample, Scene
from scripts.nano.words import Split

JUDGED = (*seeing.BY_ABILITY, "image_two", "video", *hearing.BY_ABILITY)
"""Abilities with one right answer."""

Accuracy = Mapping[str, float]
"""What is known how well, by ability; what is missing is not known at all."""

Part = dict[str, Any]
THOUGHTS = {"image": "I look at it.", "video": "I watch it.", "audio": "I listen to it."}

ANOTHER_TURN = 0.1
"""How often a question about a picture or a sound is followed by one about something else."""


class Kind(NamedTuple):
    """Conversations for training: what draws one, their share, and the abilities that they teach."""

    draw: Callable[[random.Random], Sample]
    share: float
    abilities: tuple[str, ...]


def any_image_sample(rng: random.Random, accuracy: Accuracy) -> Sample:
    """For training: a picture with one to five questions, two pictures, or a video."""
    return _any(rng, SEEN, accuracy)


def any_audio_sample(rng: random.Random, accuracy: Accuracy) -> Sample:
    """For training: a sound with one to three questions."""
    return _any(rng, HEARD, accuracy)


def _any(rng: random.Random, kinds: Sequence[Kind], accuracy: Accuracy) -> Sample:
    weights = [kind.share * need(min(accuracy.get(name, 0.0) for name in kind.abilities)) for kind in kinds]
    return rng.choices(kinds, weights)[0].draw(rng)


def need(accuracy: float) -> float:
    """How much is made of what is known so well: from 2.15 below 80 % down to 0.15."""
    return 0.15 + min(2.0, 10 * (1 - accuracy))


def _about_view(view: seeing.View, rng: random.Random) -> Sample:
    image, answers = view(rng)
    return _conversation(rng, "image", {"type": "image", "image": image}, _chosen(rng, answers, 5))


def _about_video(rng: random.Random) -> Sample:
    part, asked = _video(rng)
    return _conversation(rng, "video", part, rng.sample(asked, len(asked)))


def _about_two(rng: random.Random) -> Sample:
    return _two(rng, thinking=rng.random() < 0.2)


def _about_sound(listen: hearing.Listen, rng: random.Random) -> Sample:
    samples, answers = _short_enough(rng, listen)
    part = {"type": "audio", "audio": (samples, hearing.RATE)}
    return _conversation(rng, "audio", part, _chosen(rng, answers, 3))


SEEN = (
    Kind(
        partial(_about_view, seeing.one_figure),
        0.2,
        ("image_colour", "image_shape", "image_place", "image_describe"),
    ),
    Kind(partial(_about_view, seeing.some_figures), 0.27, ("image_which", "image_describe")),
    Kind(partial(_about_view, seeing.many_figures), 0.2, ("image_count",)),
    Kind(partial(_about_view, seeing.number), 0.3, ("image_number",)),
    Kind(_about_two, 0.1, ("image_two",)),
    Kind(_about_video, 0.15, ("video",)),
)
HEARD = (
    Kind(partial(_about_sound, hearing.beeps), 0.2, ("audio_count",)),
    Kind(partial(_about_sound, hearing.pitches), 0.2, ("audio_pitch",)),
    Kind(partial(_about_sound, hearing.kinds), 0.15, ("audio_kind",)),
    Kind(partial(_about_sound, hearing.speech), 0.45, ("audio_digit", "audio_transcribe")),
)


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
