"""Words that fill the synthetic tasks, parted into those seen in training and those held out to judge it."""

import random
import re
import zlib
from pathlib import Path
from typing import Literal

Split = Literal["train", "eval"]

DATA = Path(__file__).parent / "data"

# Words a reader is likely to try first are always trained on.
ALWAYS_TRAINED = frozenset("Paris London Tokyo Berlin Rome Madrid Boston weather time Ana Bob Alice".split())


def _lists() -> dict[str, list[str]]:
    """data/words.txt: `name:`, then words; an underscore in a city's name stands for a space."""
    sections = re.findall(r"^(\w+):\n((?:  .*\n)+)", (DATA / "words.txt").read_text(), re.MULTILINE)
    return {name: body.split() for name, body in sections}


LISTS = _lists()
VERBS = LISTS["verbs"]
ONSETS = (
    "b bl br c cl cr d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s sk sl sn sp st t tr v w y z th sh ch".split()
)
VOWELS = "a a e e i i o o u ai ea ee oa oo ou".split()
CODAS = ["", "", "", "b", "ck", "d", "g", "l", "m", "n", "nd", "ng", "nt", "p", "r", "rk", "s", "st", "t", "x"]


def held_out(word: str) -> bool:
    """Whether a word is kept away from training (one in eight)."""
    return word not in ALWAYS_TRAINED and zlib.crc32(word.encode()) % 8 == 0


def _parted(words: list[str]) -> dict[Split, list[str]]:
    unique = list(dict.fromkeys(words))
    return {
        "train": [word for word in unique if not held_out(word)],
        "eval": [word for word in unique if held_out(word)],
    }


POOLS: dict[str, dict[Split, list[str]]] = {
    "city": _parted([city.replace("_", " ") for city in LISTS["cities"]]),
    "person": _parted(LISTS["people"]),
    "thing": _parted(LISTS["things"]),
    "adjective": _parted(LISTS["adjectives"]),
    "noun": _parted(LISTS["nouns"]),
    "label": _parted(LISTS["labels"]),
    "switch": _parted(LISTS["switches"]),
}
"""Words by what they can stand for, in two parts."""


def pick(rng: random.Random, pool: str, split: Split) -> str:
    """One word of a pool, from the asked part of it."""
    return rng.choice(POOLS[pool][split])


MADE_UP_SHARE: dict[Split, float] = {"train": 0.4, "eval": 0.15}
"""How often a word is one that means nothing. Training sees more of them, so as to copy words and not to know them."""

_KNOWN = [word for parts in POOLS.values() for words in parts.values() for word in words if word.isalpha()]


def word(rng: random.Random, pool: str, split: Split) -> str:
    """A word of a pool, or a made-up one in its place."""
    return made_up(rng, split) if rng.random() < MADE_UP_SHARE[split] else pick(rng, pool, split)


def _chimera(rng: random.Random) -> str:
    """The beginning of one word and the end of another. Held-out words lend their parts, so that every token is written
    in training though the words are not."""
    first, second = rng.choice(_KNOWN), rng.choice(_KNOWN)
    return (first[: rng.randint(2, len(first))] + second[rng.randint(0, len(second) - 2) :]).lower()


def made_up(rng: random.Random, split: Split, *, syllables: int | None = None) -> str:
    """A word that means nothing, lower case."""
    while True:
        if split == "train" and syllables is None and rng.random() < 0.5:
            chimera = _chimera(rng)
            if chimera not in _KNOWN and not held_out(chimera):
                return chimera
        count = syllables or rng.choice((1, 2, 2, 2, 3))
        word = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(count))
        if len(word) > 2 and held_out(word) == (split == "eval"):
            return word
