"""The outlines of the figures that nano knows, and numbers as print."""

import functools
import math
import random

from PIL import Image, ImageDraw, ImageFont

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart")

Point = tuple[float, float]


def outline(
    pen: ImageDraw.ImageDraw,
    shape: str,
    centre: Point,
    radius: float,
    *,
    turn: float,
    fill: tuple[int, int, int],
    behind: tuple[int, int, int],
) -> None:
    """Draws a filled figure of about `radius` around `centre`, turned by `turn` (radians); a ring shows `behind`."""
    x, y = centre
    if shape in ("circle", "ring"):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
        if shape == "ring":
            hole = radius * 0.58
            pen.ellipse((x - hole, y - hole, x + hole, y + hole), fill=behind)
        return
    cos, sin = radius * math.cos(turn), radius * math.sin(turn)
    pen.polygon([(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in _corners(shape)], fill=fill)


@functools.cache
def _corners(shape: str) -> tuple[Point, ...]:
    """Corners of a figure within the unit circle, y downwards."""
    if shape == "square":
        return (-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)
    if shape == "triangle":
        return (0.0, -1.0), (0.95, 0.75), (-0.95, 0.75)
    if shape == "star":
        return tuple(_on_circle(0.42 if corner % 2 else 1.0, corner / 10) for corner in range(10))
    if shape == "cross":
        a, b = 0.32, 0.95
        return (
            *[(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)],
            *[(a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)],
        )
    if shape == "heart":
        return tuple(_on_heart(2 * math.pi * step / 40) for step in range(40))
    raise KeyError(shape)


def _on_circle(radius: float, turns: float) -> Point:
    return radius * math.sin(2 * math.pi * turns), -radius * math.cos(2 * math.pi * turns)


def _on_heart(t: float) -> Point:
    height = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
    return 16 * math.sin(t) ** 3 / 17, -height / 17


def printed(rng: random.Random, text: str, height: int, fill: tuple[int, int, int]) -> Image.Image:
    """`text` in print about `height` pixels high, on nothing (RGBA): bold or thin, narrow or wide, a little turned."""
    font = _font(round(height * 1.35 / 4) * 4)
    bold = rng.choice((0, 0, max(1, height // 30), max(1, height // 18)))
    left, top, right, bottom = font.getbbox(text, stroke_width=bold)
    tile = Image.new("RGBA", (int(right - left) + 4, int(bottom - top) + 4), (*fill, 0))
    ImageDraw.Draw(tile).text((2 - left, 2 - top), text, font=font, fill=(*fill, 255), stroke_width=bold)
    tile = tile.resize((max(4, int(tile.width * rng.uniform(0.8, 1.25))), tile.height), Image.Resampling.BILINEAR)
    return tile.rotate(rng.uniform(-6, 6), Image.Resampling.BILINEAR, expand=True, fillcolor=(*fill, 0))


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font
