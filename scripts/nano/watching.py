"""What nano can be asked about a video: a figure that moves, grows, shrinks or changes its colour over a few frames."""

import random
from collections.abc import Callable
from dataclasses import replace

from PIL import Image

from scripts.nano import pictures
from scripts.nano.figures import SHAPES
from scripts.nano.pictures import COLOURS, Figure
from scripts.nano.seeing import Asked, named, sentence
from scripts.nano.shape import VIDEO_FRAMES

WAYS: dict[str, tuple[float, float]] = {
    "to the right": (1, 0),
    "to the left": (-1, 0),
    "down": (0, 1),
    "up": (0, -1),
}

HAPPENS = (
    "What happens in the video?|What happens?|Describe the video.|What do you see in the video?|Describe this video.|"
    "What is going on in this video?|what happens in this clip"
).split("|")
WAY = (
    "Which way does the {it} move?|Where does the {it} go?|In which direction does the {it} move?|"
    "which way does the {it} go|Where does the {it} move to?"
).split("|")

Film = tuple[list[Image.Image], list[Asked]]


def film(rng: random.Random) -> Film:
    """The frames and what can be asked about them."""
    shape, (colour, other) = rng.choice(SHAPES), rng.sample(list(COLOURS), 2)
    on = pictures.canvas(rng, [colour, other])
    start = Figure(shape, colour, rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7), rng.uniform(0.12, 0.18))
    figures, asked = rng.choice((_moving, _moving, _sized, _recoloured))(rng, start, other)
    return [pictures.drawn(rng, on, [figure]) for figure in figures], asked


def _over(change: Callable[[float], Figure]) -> list[Figure]:
    """The figure at the times 0 to 1."""
    return [change(frame / (VIDEO_FRAMES - 1)) for frame in range(VIDEO_FRAMES)]


def _moving(rng: random.Random, start: Figure, other: str) -> tuple[list[Figure], list[Asked]]:
    way = rng.choice(list(WAYS))
    across, down = WAYS[way]
    first, last = rng.uniform(0.14, 0.28), rng.uniform(0.72, 0.86)

    def at(time: float) -> Figure:
        along = first + (last - first) * time
        x = start.x if across == 0 else along if across > 0 else 1 - along
        y = start.y if down == 0 else along if down > 0 else 1 - along
        return replace(start, x=x, y=y)

    it = rng.choice(["shape", "figure", "object", start.shape])
    moves = sentence(f"{named(start.colour, start.shape)} moves {way}")
    return _over(at), [(rng.choice(HAPPENS), moves), (rng.choice(WAY).format(it=it), f"{way.capitalize()}.")]


def _sized(rng: random.Random, start: Figure, other: str) -> tuple[list[Figure], list[Asked]]:
    small, large = rng.uniform(0.08, 0.12), rng.uniform(0.26, 0.36)
    grows = rng.random() < 0.5
    first, last = (small, large) if grows else (large, small)
    figures = _over(lambda time: replace(start, radius=first + (last - first) * time))
    happened = f"{named(start.colour, start.shape)} {'grows' if grows else 'shrinks'}"
    return figures, [(rng.choice(HAPPENS), sentence(happened))]


def _recoloured(rng: random.Random, start: Figure, other: str) -> tuple[list[Figure], list[Asked]]:
    change = rng.uniform(0.1, 0.9)
    figures = _over(lambda time: start if time < change else replace(start, colour=other))
    return figures, [(rng.choice(HAPPENS), sentence(f"{named(start.colour, start.shape)} turns {other}"))]
