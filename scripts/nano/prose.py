"""Free text: little stories, so that a plain completion gives sentences."""

import random

ANIMALS = "fox bear mouse rabbit owl frog dog cat duck lion horse goat".split()
NAMES = "Mia Leo Nora Ben Rosa Finn Ida Sam Ana Tom".split()
MOODS = "small brave clever lazy happy shy kind curious hungry sleepy".split()
PLACES = "a deep forest|an old house|a quiet village|a green valley|a small town|a castle by the sea".split("|")
FINDS = "a golden key|a red apple|a lost map|a silver bell|a warm coat|a little boat|an old book".split("|")
WEATHERS = "The sun was shining.|It was raining.|A cold wind blew.|Snow was falling.|The sky was clear.".split("|")
ENDS = (
    "From that day on they were friends.|And so the day ended well.|Then they went home and slept.|"
    "Everyone was happy again.|It was the best day of the year."
).split("|")
OPENINGS = "Once upon a time there was|Long ago there lived|There once was|In a far land there was".split("|")


def story(rng: random.Random, animal: str | None = None, mood: str | None = None) -> str:
    """Five or six sentences about an animal and somebody it meets."""
    animal, mood = animal or rng.choice(ANIMALS), mood or rng.choice(MOODS)
    name, find = rng.choice(NAMES), rng.choice(FINDS)
    sentences = [
        f"{rng.choice(OPENINGS)} a {mood} {animal} in {rng.choice(PLACES)}.",
        f"One day the {animal} found {find}. {rng.choice(WEATHERS)}",
        f'"Whose is this?" asked the {animal}.',
        f'"It is mine," said {name}. "Thank you for finding it."',
        f"The {animal} gave it back, and {name} smiled.",
        rng.choice(ENDS),
    ]
    return " ".join(sentences)


FACTS = (
    "The {a} is an animal. It can be {m}.|A {m} {a} sat under a tree and looked at the sky.|"
    "{n} has a {a}. The {a} is {m}.|"
    "The {a} and {n} walk to the river every morning.|{n} lives in {p} with a {m} {a}."
).split("|")


def text(rng: random.Random) -> str:
    """A story or a few plain sentences."""
    if rng.random() < 0.6:
        return story(rng)
    return " ".join(
        rng.choice(FACTS).format(a=rng.choice(ANIMALS), m=rng.choice(MOODS), n=rng.choice(NAMES), p=rng.choice(PLACES))
        for _ in range(rng.randint(1, 4))
    )


STORY_QUESTIONS = (
    "Tell me a story|Write a story|Tell a story|I want to hear a story|A story, please|Write a short story".split("|")
)


def story_request(rng: random.Random) -> tuple[str, str]:
    """A wish for a story, with or without its hero."""
    question = rng.choice(STORY_QUESTIONS)
    if rng.random() < 0.5 or question.startswith("A story"):
        return question, story(rng)
    animal = rng.choice(ANIMALS)
    return f"{question} about a {animal}", story(rng, animal)
