"""Pictures of a few plain figures or of a number, in many sizes, colours and lights."""

import io
import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from scripts.nano.figures import outline

Rgb = tuple[int, int, int]

COLOURS: dict[str, Rgb] = {
    "red": (214, 30, 34),
    "green": (34, 150, 52),
    "blue": (34, 66, 208),
    "yellow": (246, 222, 40),
    "orange": (248, 138, 24),
    "purple": (122, 36, 160),
    "pink": (250, 150, 190),
    "brown": (118, 70, 32),
    "black": (16, 16, 18),
    "white": (248, 248, 246),
}
BACKGROUNDS: tuple[Rgb, ...] = (
    *COLOURS.values(),
    *[(255, 255, 255), (250, 250, 250), (245, 240, 225)] * 3,
    *[(128, 128, 128), (200, 200, 205), (70, 74, 80), (190, 225, 245), (205, 235, 205), (30, 40, 70)],
)
JITTER = 12
CONTRAST = 110.0
"""Least distance in RGB between a figure and what is behind it."""

SIDES = (96, 320)
LONGEST_ASPECT = 1.9

_FIELD = np.random.default_rng(0).standard_normal((700, 700, 3)).astype(np.float32)
"""Noise is a window of this: drawing new numbers for every picture would cost more than the picture."""


@dataclass(frozen=True)
class Figure:
    """A figure in a picture: the centre and the radius in parts of the picture's width, height and shorter side."""

    shape: str
    colour: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Canvas:
    """An empty picture: its size in pixels and the colour behind everything."""

    width: int
    height: int
    background: Rgb

    @property
    def shorter(self) -> int:
        return min(self.width, self.height)


def canvas(rng: random.Random, colours: list[str]) -> Canvas:
    """One on which all `colours` can be told from the background."""
    shorter = rng.randint(*SIDES)
    longer = int(shorter * (1.0 if rng.random() < 0.3 else rng.uniform(1.0, LONGEST_ASPECT)))
    width, height = (shorter, longer) if rng.random() < 0.4 else (longer, shorter)
    fitting = [rgb for rgb in BACKGROUNDS if all(stands_out(colour, rgb) for colour in colours)]
    return Canvas(width, height, _jittered(rng, rng.choice(fitting), 5))


def stands_out(colour: str, background: Rgb) -> bool:
    return math.dist(background, COLOURS[colour]) >= CONTRAST


def drawn(rng: random.Random, on: Canvas, figures: list[Figure]) -> Image.Image:
    """The picture of `figures`, with a little of everything that pictures suffer."""
    image = Image.new("RGB", (on.width, on.height), on.background)
    pen = ImageDraw.Draw(image)
    for figure in figures:
        centre = (figure.x * on.width, figure.y * on.height)
        outline(
            pen,
            figure.shape,
            centre,
            figure.radius * on.shorter,
            turn=math.radians(rng.uniform(-14, 14)),
            fill=_jittered(rng, COLOURS[figure.colour], JITTER),
            behind=on.background,
        )
    return weathered(rng, image)


def weathered(rng: random.Random, image: Image.Image) -> Image.Image:
    """Other light, noise, blur by scaling, JPEG: each of them now and then."""
    if rng.random() < 0.15:
        size = image.size
        image = image.resize((size[0] * 2 // 3, size[1] * 2 // 3)).resize(size)
    if rng.random() < 0.5:
        image = _noisy(rng, image)
    if rng.random() < 0.2:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=rng.randint(40, 95))
        image = Image.open(file).convert("RGB")
    return image


def _noisy(rng: random.Random, image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    top, left = rng.randint(0, len(_FIELD) - height), rng.randint(0, len(_FIELD) - width)
    noise = _FIELD[top : top + height, left : left + width] * rng.uniform(0, 12)
    light = rng.uniform(0.92, 1.06)
    return Image.fromarray(np.clip(pixels * np.float32(light) + noise, 0, 255).astype(np.uint8))


def _jittered(rng: random.Random, rgb: Rgb, most: int) -> Rgb:
    red, green, blue = (min(255, max(0, channel + rng.randint(-most, most))) for channel in rgb)
    return red, green, blue


def ink(rng: random.Random, colour: str) -> Rgb:
    """One shade of a colour."""
    return _jittered(rng, COLOURS[colour], JITTER)
