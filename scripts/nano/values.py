"""Argument values of the synthetic tools: how each kind is drawn. They stand in the sentence exactly as in the call."""

import random
import string
from collections.abc import Callable

from scripts.nano.words import Split, made_up, pick

Value = str | int | float | bool
Draw = Callable[[random.Random, Split], Value]

LANGUAGES = "French German Spanish Italian Dutch Polish Greek Russian Japanese Chinese Korean Hindi English".split()
CURRENCIES = "USD EUR GBP JPY CHF CAD AUD CNY INR SEK NOK dollars euros pounds yen francs".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday tomorrow today tonight".split()
MONTHS = "January February March April May June July August September October November December".split()
GREETINGS = (
    "hello|see you soon|I am late|call me back|good luck|dinner is ready|thank you so much|happy birthday|"
    "the meeting is over|I will be there|do not forget the milk|all is well|the train is late|where are you"
).split("|")
EXTENSIONS = "txt md csv json pdf png jpg mp3 py html".split()


def word(rng: random.Random, split: Split) -> str:
    """One or two words, known or made up, any case."""
    draw = rng.random()
    if draw < 0.35:
        text = made_up(rng, split)
        return text.capitalize() if rng.random() < 0.5 else text
    if draw < 0.6:
        return pick(rng, rng.choice(["city", "person"]), split)
    if draw < 0.8:
        return pick(rng, rng.choice(["thing", "adjective", "noun"]), split)
    return f"{pick(rng, 'adjective', split)} {pick(rng, 'thing', split)}"


def city(rng: random.Random, split: Split) -> str:
    return made_up(rng, split).capitalize() if rng.random() < 0.3 else pick(rng, "city", split)


def person(rng: random.Random, split: Split) -> str:
    first = made_up(rng, split).capitalize() if rng.random() < 0.3 else pick(rng, "person", split)
    return f"{first} {made_up(rng, split).capitalize()}" if rng.random() < 0.25 else first


def thing(rng: random.Random, split: Split) -> str:
    return made_up(rng, split) if rng.random() < 0.3 else pick(rng, "thing", split)


def things(rng: random.Random, split: Split) -> str:
    return f"{pick(rng, 'adjective', split)} {thing(rng, split)}" if rng.random() < 0.5 else thing(rng, split)


def title(rng: random.Random, split: Split) -> str:
    count = rng.choice((1, 2, 2, 3))
    pools = ("adjective", "thing", "noun", "person")
    chosen = [made_up(rng, split) if rng.random() < 0.2 else pick(rng, rng.choice(pools), split) for _ in range(count)]
    return " ".join(part[0].upper() + part[1:] for part in chosen)


def message(rng: random.Random, split: Split) -> str:
    if rng.random() < 0.4:
        return rng.choice(GREETINGS)
    pools = ("adjective", "thing", "noun", "person", "thing")
    return " ".join(pick(rng, rng.choice(pools), split) for _ in range(rng.randint(2, 5)))


def code(rng: random.Random, split: Split) -> str:
    letters = "".join(rng.choice(string.ascii_uppercase) for _ in range(rng.randint(1, 3)))
    digits = "".join(rng.choice(string.digits) for _ in range(rng.randint(1, 4)))
    return rng.choice(
        [f"{letters}{digits}", f"{letters}-{digits}", f"{made_up(rng, split)}_{digits}", f"{digits}{letters}"]
    )


def ticker(rng: random.Random, split: Split) -> str:
    return "".join(rng.choice(string.ascii_uppercase) for _ in range(rng.randint(2, 4)))


def email(rng: random.Random, split: Split) -> str:
    return f"{pick(rng, 'person', split).lower()}@{made_up(rng, split)}.{rng.choice(['com', 'org', 'net', 'de'])}"


def file(rng: random.Random, split: Split) -> str:
    stem = rng.choice([pick(rng, "noun", split), made_up(rng, split), pick(rng, "thing", split)])
    return (
        f"{stem}.{rng.choice(EXTENSIONS)}"
        if rng.random() < 0.8
        else f"/{made_up(rng, split)}/{stem}.{rng.choice(EXTENSIONS)}"
    )


def clock(rng: random.Random, split: Split) -> str:
    hour, minute = rng.randint(0, 23), rng.choice((0, 0, 15, 30, 45, rng.randint(0, 59)))
    return rng.choice(
        [
            f"{hour}:{minute:02d}",
            f"{hour:02d}:{minute:02d}",
            f"{hour % 12 + 1} am",
            f"{hour % 12 + 1} pm",
            f"{hour % 12 + 1}pm",
        ]
    )


def date(rng: random.Random, split: Split) -> str:
    day, month = rng.randint(1, 28), rng.randint(1, 12)
    iso = f"{rng.randint(2019, 2031)}-{month:02d}-{day:02d}"
    return rng.choice(
        [iso, iso, rng.choice(DAYS), rng.choice(DAYS), f"{MONTHS[month - 1]} {day}", f"{day} {MONTHS[month - 1]}"]
    )


def integer(rng: random.Random, split: Split) -> int:
    return rng.choice((rng.randint(0, 9), rng.randint(2, 30), rng.randint(10, 99), rng.randint(100, 9999)))


KINDS: dict[str, tuple[str, Draw]] = {
    "word": ("string", word),
    "city": ("string", city),
    "person": ("string", person),
    "thing": ("string", thing),
    "things": ("string", things),
    "title": ("string", title),
    "message": ("string", message),
    "code": ("string", code),
    "ticker": ("string", ticker),
    "email": ("string", email),
    "file": ("string", file),
    "clock": ("string", clock),
    "date": ("string", date),
    "language": ("string", lambda rng, split: rng.choice(LANGUAGES)),
    "currency": ("string", lambda rng, split: rng.choice(CURRENCIES)),
    "color": ("string", lambda rng, split: rng.choice("red blue green yellow white pink purple orange".split())),
    "integer": ("integer", integer),
    "small": ("integer", lambda rng, split: rng.choice((rng.randint(2, 10), rng.randint(2, 60)))),
    "percent": ("integer", lambda rng, split: rng.randint(0, 100)),
    "number": (
        "number",
        lambda rng, split: (
            round(rng.uniform(0, 100), rng.choice((1, 2))) if rng.random() < 0.5 else rng.randint(1, 999)
        ),
    ),
    "boolean": ("boolean", lambda rng, split: rng.random() < 0.5),
}
"""JSON-schema type and the way to draw, by kind."""

TEXT_KINDS = (
    "word",
    "word",
    "city",
    "person",
    "thing",
    "things",
    "title",
    "code",
    "email",
    "file",
    "clock",
    "date",
    "message",
)


def draw(rng: random.Random, kind: str, split: Split) -> Value:
    """A value of a kind; `a,b,c` is one of the listed strings."""
    if "," in kind:
        return rng.choice(kind.split(","))
    return KINDS[kind][1](rng, split)


def schema_type(kind: str) -> str:
    return "string" if "," in kind else KINDS[kind][0]
