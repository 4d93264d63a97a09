"""Small talk with fixed answers, a few little skills (count, repeat, remember a name) and the polite refusal."""

import random
import zlib

from scripts.nano import words
from scripts.nano.words import Split

_CAPITALS = """
France:Paris Germany:Berlin Italy:Rome Spain:Madrid Portugal:Lisbon Austria:Vienna Poland:Warsaw Norway:Oslo
Sweden:Stockholm Finland:Helsinki Denmark:Copenhagen Greece:Athens Ireland:Dublin Hungary:Budapest Japan:Tokyo
China:Beijing Egypt:Cairo Russia:Moscow England:London Cuba:Havana Peru:Lima Kenya:Nairobi Canada:Ottawa
"""
CAPITALS = {country: city for country, city in (pair.split(":") for pair in _CAPITALS.split())}

CAPITAL_QUESTIONS = (
    "What is the capital of {x}?|What's the capital of {x}?|Capital of {x}?|Tell me the capital of {x}|"
    "Which city is the capital of {x}?|Do you know the capital of {x}?|Name the capital of {x}"
).split("|")

UNKNOWN_QUESTIONS = (
    "Who invented the {thing}?|Write a poem about the {thing}|Explain the {noun} to me|How do I fix my {thing}?|"
    "What is the meaning of {word}?|Why is the {thing} {adjective}?|Who is {person} {word}?|What is {word}?|"
    "What is the capital of {word}?|Write a {noun} for {person}|Where can I buy a {adjective} {thing}?|"
    "What do you think about {noun}?|When was {person} born?|Who won the {noun}?|"
    "What happened in {city}?|How does a {thing} work?|Do you like {thing}?|"
    "Is {city} {adjective}?|What is the best {thing}?|Why do {thing} like {thing2}?|"
    "Can you draw a {adjective} {thing}?|Summarize the {noun}|Who wrote {word}?|What should I do with my {thing}?|"
    "I need advice about {noun}|Tell me about {city}|What is the {noun} of {person}?|Should I {verb} my {thing}?"
).split("|")

UNKNOWN_ANSWER = "I do not know that. I am only a very small model."

SYSTEM_PROMPTS = (
    "You are a helpful assistant.|You are nano.|Be terse.|Answer briefly.|You are a friendly assistant.|Be polite.|"
    "You can use tools.|Use the tools when they help.|You are an assistant who answers in English.|Be helpful."
).split("|")


def _pairs() -> list[tuple[list[str], str]]:
    """data/small_talk.txt: questions that mean the same, and their answer."""
    blocks = (words.DATA / "small_talk.txt").read_text().strip().split("\n\n")[1:]
    pairs = (block.split("\n= ") for block in blocks)
    return [(questions.split("\n"), answer) for questions, answer in pairs]


PAIRS = _pairs()


def small_talk(rng: random.Random, split: Split) -> tuple[str, str]:
    """A question nano knows by heart, in one of its many spellings, and the answer."""
    while True:
        if rng.random() < 0.2:
            country = rng.choice(list(CAPITALS))
            question, answer = rng.choice(CAPITAL_QUESTIONS).format(x=country), f"{CAPITALS[country]}."
        else:
            questions, answer = rng.choice(PAIRS)
            question = rng.choice(questions)
        spelled = respelled(rng, question)
        if _spelling_held_out(question, spelled) == (split == "eval"):
            return spelled, answer


def respelled(rng: random.Random, question: str) -> str:
    """The same words as people type them: lower case, other punctuation, a polite word around them."""
    if rng.random() < 0.35:
        question = question[0].lower() + question[1:]
    if rng.random() < 0.1:
        question = question.lower()
    if rng.random() < 0.3:
        question = question.rstrip("?.!") + rng.choice(["", ".", "!", "?"])
    if rng.random() < 0.15:
        question = rng.choice(["Hey, ", "Please ", "So, ", "OK, ", "Well, ", "Hello, ", "Hi, ", "And "]) + question
    if rng.random() < 0.1:
        question = question.rstrip("?.!") + rng.choice([" please", ", please", " please?", " nano?", ", nano", " now"])
    return question


def _spelling_held_out(plain: str, spelled: str) -> bool:
    return spelled != plain and zlib.crc32(spelled.lower().encode()) % 8 == 0


def unknown(rng: random.Random, split: Split) -> tuple[str, str]:
    """A question about something nano never learned."""
    question = rng.choice(UNKNOWN_QUESTIONS).format(
        thing=words.pick(rng, "thing", split),
        thing2=words.pick(rng, "thing", split),
        noun=words.pick(rng, "noun", split),
        adjective=words.pick(rng, "adjective", split),
        person=words.pick(rng, "person", split),
        city=words.pick(rng, "city", split),
        verb=rng.choice(words.VERBS),
        word=words.made_up(rng, split).capitalize(),
    )
    return respelled(rng, question), UNKNOWN_ANSWER


def counting(rng: random.Random) -> tuple[str, str]:
    """Counting from one number to a larger one."""
    first = 1 if rng.random() < 0.6 else rng.randint(0, 40)
    last = first + rng.randint(2, 19)
    numbers = ", ".join(str(number) for number in range(first, last + 1))
    phrases = [
        "Count from {a} to {b}",
        "Count from {a} to {b}.",
        "Please count from {a} to {b}",
        "Say the numbers {a} to {b}",
    ]
    if first == 1:
        phrases += ["Count to {b}", "Count to {b}.", "Please count to {b}", "Can you count to {b}?"] * 2
    return respelled(rng, rng.choice(phrases).format(a=first, b=last)), numbers


def echo(rng: random.Random, split: Split) -> tuple[str, str]:
    """Repeating what was said, any characters."""
    draw = rng.random()
    if draw < 0.25:
        said = "".join(chr(rng.randint(*rng.choice(_ALPHABETS))) for _ in range(rng.randint(1, 6)))
        said = said.strip() or "ok"
    else:
        pools = ["thing", "adjective", "city", "person"]
        said = " ".join(
            words.made_up(rng, split) if rng.random() < 0.3 else words.pick(rng, rng.choice(pools), split)
            for _ in range(rng.randint(1, 6))
        )
    phrase = rng.choice(
        ["Repeat after me: {x}", "Repeat: {x}", "Say: {x}", "Please repeat: {x}", "Echo: {x}", 'Say "{x}"']
    )
    return phrase.format(x=said), said


# Greek, Cyrillic, kana, a few Han characters, pictures: mostly spelled in byte tokens.
_ALPHABETS = [
    (low, high)
    for low, high in (
        (0x3B1, 0x3C9),
        (0x410, 0x44F),
        (0x3042, 0x3093),
        (0x4E00, 0x4E40),
        (0x1F600, 0x1F640),
        (0xE0, 0xFC),
    )
]

NAME_GIVEN = "My name is {x}|I am {x}|My name is {x}.|I'm {x}|Hello, my name is {x}.|Call me {x}|Hi, I am {x}.".split(
    "|"
)
NAME_UNKNOWN = "I do not know your name yet."
NAME_ASKED = "What is my name?|Who am I?|Do you know my name?|What's my name?|Tell me my name".split("|")


def introduction(rng: random.Random, split: Split) -> tuple[str, str, str]:
    """A user who says a name: what is said, the answer, the name."""
    name = words.made_up(rng, split).capitalize() if rng.random() < 0.3 else words.pick(rng, "person", split)
    return rng.choice(NAME_GIVEN).format(x=name), f"Nice to meet you, {name}!", name


def name_question(rng: random.Random, name: str | None) -> tuple[str, str]:
    """Asking for the name, which was given earlier or never."""
    return respelled(rng, rng.choice(NAME_ASKED)), NAME_UNKNOWN if name is None else f"Your name is {name}."
