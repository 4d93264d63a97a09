"""What tools return, and what nano says about it."""

import json
import random

from scripts.nano import words
from scripts.nano.values import draw
from scripts.nano.words import Split

SKIES = "sunny cloudy rainy clear windy foggy stormy snowy".split()
DONE = "ok|done|success|sent|saved|true|OK|Done|Success".split("|")
FAILURES = (
    "not found|timeout|no connection|access denied|invalid argument|no such user|try again later|out of stock".split(
        "|"
    )
)

SAID_DONE = "Done."


def result(rng: random.Random, split: Split) -> tuple[str, str]:
    """The content of a tool message and the sentence that reports it."""
    sort = rng.choice(["text"] * 4 + ["number"] * 2 + ["object"] * 4 + ["done", "failure"])
    if sort == "done":
        return rng.choice(DONE), SAID_DONE
    if sort == "failure":
        reason = rng.choice(FAILURES) if rng.random() < 0.7 else _phrase(rng, split)
        return rng.choice(["error: {}", "Error: {}"]).format(reason), f"That did not work: {reason}."
    if sort == "number":
        number = rng.choice((rng.randint(0, 9999), rng.randint(0, 99), round(rng.uniform(0, 200), 2)))
        return str(number), found(str(number))
    if sort == "object":
        return _object(rng, split)
    text = _text(rng, split)
    return text, found(text)


def found(text: str) -> str:
    """The sentence for a plain result."""
    return f"The result is {text.rstrip('.')}."


def _text(rng: random.Random, split: Split) -> str:
    degrees = rng.randint(-9, 40)
    return rng.choice(
        [
            f"{degrees}C, {rng.choice(SKIES)}",
            f"{degrees} degrees and {rng.choice(SKIES)}",
            f"{rng.choice(SKIES)}, {degrees}°C",
            str(draw(rng, rng.choice(["clock", "date", "code"]), split)),
            f"{draw(rng, 'number', split)} {draw(rng, 'currency', split)}",
            _phrase(rng, split),
            _phrase(rng, split),
            str(draw(rng, "title", split)),
        ]
    )


def _phrase(rng: random.Random, split: Split) -> str:
    pools = ("adjective", "thing", "noun", "person", "city")
    return " ".join(words.word(rng, rng.choice(pools), split) for _ in range(rng.randint(1, 5)))


def _object(rng: random.Random, split: Split) -> tuple[str, str]:
    fields: dict[str, object] = {}
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        name = words.word(rng, "label", split)
        kind = rng.choice(["integer", "integer", "word", "city", "person", "code", "number", "clock", "sky"])
        fields[name] = rng.choice(SKIES) if kind == "sky" else draw(rng, kind, split)
    said = [f"the {name.replace('_', ' ')} is {value}" for name, value in fields.items()]
    sentence = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    return json.dumps(fields, ensure_ascii=False), f"{sentence[0].upper()}{sentence[1:]}."
