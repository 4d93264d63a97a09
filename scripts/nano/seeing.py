"""What nano can be asked about a picture: pictures, the questions that fit them, and the one right answer to each."""

import random
from collections.abc import Callable

from PIL import Image

from scripts.nano import pictures
from scripts.nano.figures import SHAPES, printed
from scripts.nano.pictures import COLOURS, Figure

Asked = tuple[str, str]
"""A question and its answer."""

MOST = 5
"""Figures that are to be counted."""

PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")

COLOUR = (
    "What colour is the {it}?|What color is the {it}?|Which colour is the {it}?|what color is the {it}|"
    "Tell me the colour of the {it}.|What is the color of the {it}?|Which color does the {it} have?|Color of the {it}?"
).split("|")
SHAPE = (
    "What shape is this?|What shape is it?|Which shape do you see?|what shape is in the picture|Name the shape.|"
    "What is the shape in the image?|Which figure is this?|What figure do you see in the picture?|Shape?"
).split("|")
SHAPE_OF = (
    "What shape is the {it} one?|Which shape is {it}?|What is {it} in the picture?|What is the {it} thing?|"
    "which figure is {it}|Name the {it} shape."
).split("|")
PLACE = (
    "Where is the {it}?|Where in the picture is the {it}?|Where do you see the {it}?|where is the {it}|"
    "In which part of the image is the {it}?|What is the position of the {it}?|Where is the {it} in this picture?"
).split("|")
COUNT = (
    "How many shapes are there?|How many shapes do you see?|How many figures are in the picture?|Count the shapes.|"
    "how many shapes are in the image|How many things are there?|What is the number of shapes?|Count the figures"
).split("|")
NUMBER = (
    "Which number is this?|What number do you see?|Read the number.|What is written here?|What does it say?|"
    "which number is in the picture|Read the text in the image.|What number is written in the picture?|"
    "Which number is shown?|What is the number in this image?"
).split("|")
DESCRIBE = (
    "Describe the picture.|Describe this image.|What is in the picture?|What do you see?|What is this?|"
    "What's in this image?|what do you see in the picture|What can you see?|Describe what you see.|Caption this image."
).split("|")
IS_THERE = "Is there a {it} in the picture?|Do you see a {it}?|Can you see a {it}?|Is a {it} in the image?".split("|")


def one_figure(rng: random.Random) -> tuple[Image.Image, dict[str, list[Asked]]]:
    """A single figure anywhere: colour, shape, place."""
    shape, colour, place = rng.choice(SHAPES), rng.choice(list(COLOURS)), rng.randrange(9)
    on = pictures.canvas(rng, [colour])
    if place == 4 and rng.random() < 0.5:
        radius = rng.uniform(0.18, 0.45)
        figure = Figure(shape, colour, 0.5 + rng.uniform(-0.03, 0.03), 0.5 + rng.uniform(-0.03, 0.03), radius)
    else:
        x, y = (0.5 + (third - 1) * 0.32 + rng.uniform(-0.06, 0.06) for third in (place % 3, place // 3))
        figure = Figure(shape, colour, x, y, rng.uniform(0.1, 0.19))
    it = rng.choice(["shape", "figure", shape, "object", "thing"])
    answers = {
        "image_colour": [(rng.choice(COLOUR).format(it=it), f"{colour.capitalize()}.")],
        "image_shape": [(rng.choice(SHAPE), f"A {shape}.")],
        "image_place": [(rng.choice(PLACE).format(it=it), _place(place))],
        "image_describe": [(rng.choice(DESCRIBE), sentence(named(colour, shape)))],
    }
    return pictures.drawn(rng, on, [figure]), answers


def named(colour: str, shape: str) -> str:
    return f"{'an' if colour == 'orange' else 'a'} {colour} {shape}"


def sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _place(place: int) -> str:
    return "In the middle." if place == 4 else f"{PLACES[place].capitalize()}."


def some_figures(rng: random.Random) -> tuple[Image.Image, dict[str, list[Asked]]]:
    """Two or three different figures side by side: which is which, what is there, from left to right."""
    count = rng.choice((2, 2, 3))
    shapes, colours = rng.sample(SHAPES, count), rng.sample(list(COLOURS), count)
    zipped = list(zip(shapes, colours, strict=True))
    on = pictures.canvas(rng, colours)
    figures = [
        Figure(
            shape,
            colour,
            (index + 0.5) / count + rng.uniform(-0.05, 0.05),
            rng.uniform(0.22, 0.78),
            min(0.2, 0.4 / count * on.width / on.shorter) * rng.uniform(0.65, 1.0),
        )
        for index, (shape, colour) in enumerate(zipped)
    ]
    names = [named(colour, shape) for shape, colour in zipped]
    said = f"{', '.join(names[:-1])} and {names[-1]}"
    first, second = rng.sample(range(count), 2)
    answers = {
        "image_which": [
            *((rng.choice(COLOUR).format(it=shape), f"{colour.capitalize()}.") for shape, colour in zipped),
            *((rng.choice(SHAPE_OF).format(it=colour), f"A {shape}.") for shape, colour in zipped),
            *_is_there(rng, shapes),
            _side(rng, shapes[first], shapes[second], first < second),
            _side(rng, shapes[second], shapes[first], second < first),
        ],
        "image_describe": [(rng.choice(DESCRIBE), sentence(said))],
        "image_count": [(rng.choice(COUNT), str(count))],
    }
    return pictures.drawn(rng, on, figures), answers


def _is_there(rng: random.Random, shapes: list[str]) -> list[Asked]:
    """Whether there is one of `shapes`, and one that is not among them."""
    absent = rng.choice([shape for shape in SHAPES if shape not in shapes])
    asked = ((rng.choice(shapes), "Yes."), (absent, "No."))
    return [(rng.choice(IS_THERE).format(it=shape), answer) for shape, answer in asked]


def _side(rng: random.Random, one: str, other: str, left: bool) -> Asked:
    side = rng.choice(["left", "right"])
    question = rng.choice(["Is the {a} {s} of the {b}?", "Is the {a} to the {s} of the {b}?"])
    return question.format(a=one, b=other, s=side), "Yes." if (side == "left") == left else "No."


def many_figures(rng: random.Random) -> tuple[Image.Image, dict[str, list[Asked]]]:
    """One to five figures strewn about: how many, and whether there is one of some shape."""
    count = rng.randint(1, MOST)
    shape, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
    mixed_shapes, mixed_colours = rng.random() < 0.5, rng.random() < 0.5
    colours = [rng.choice(list(COLOURS)) if mixed_colours else colour for _ in range(count)]
    colours = [c if c != "white" or len(set(colours)) == 1 else "black" for c in colours]
    on = pictures.canvas(rng, list(set(colours)) if len(set(colours)) < 4 else ["black"])
    figures = []
    for one in colours:
        if (spot := _free_spot(rng, on, figures)) is None:
            break
        x, y, radius = spot
        figures.append(Figure(rng.choice(SHAPES) if mixed_shapes else shape, one, x, y, radius))
    figures = [f if _stands_out(f, on) else Figure(f.shape, _other(rng, on), f.x, f.y, f.radius) for f in figures]
    answers = {
        "image_count": [(_count_question(rng, None if mixed_shapes else shape), str(len(figures)))],
        "image_which": _is_there(rng, [figure.shape for figure in figures]),
    }
    return pictures.drawn(rng, on, figures), answers


def _count_question(rng: random.Random, shape: str | None) -> str:
    if shape is None or rng.random() < 0.5:
        return rng.choice(COUNT)
    several = "crosses" if shape == "cross" else f"{shape}s"
    return rng.choice(["How many {s} are there?", "How many {s} do you see?", "Count the {s}."]).format(s=several)


def _free_spot(rng: random.Random, on: pictures.Canvas, taken: list[Figure]) -> tuple[float, float, float] | None:
    """Centre and radius of a place that touches neither the border nor another figure."""
    for _ in range(60):
        radius = rng.uniform(0.08, 0.14)
        across, down = radius * on.shorter / on.width, radius * on.shorter / on.height
        x, y = rng.uniform(across, 1 - across), rng.uniform(down, 1 - down)
        if all(_gap(on, x, y, f) > (radius + f.radius) * 1.25 for f in taken):
            return x, y, radius
    return None


def _gap(on: pictures.Canvas, x: float, y: float, figure: Figure) -> float:
    across, down = (x - figure.x) * on.width, (y - figure.y) * on.height
    return (across**2 + down**2) ** 0.5 / on.shorter


def _stands_out(figure: Figure, on: pictures.Canvas) -> bool:
    return pictures.stands_out(figure.colour, on.background)


def _other(rng: random.Random, on: pictures.Canvas) -> str:
    return rng.choice([colour for colour in COLOURS if pictures.stands_out(colour, on.background)])


def number(rng: random.Random) -> tuple[Image.Image, dict[str, list[Asked]]]:
    """A printed number of one or two digits."""
    value, colour = rng.randint(0, 99), rng.choice(list(COLOURS))
    on = pictures.canvas(rng, [colour])
    image = Image.new("RGB", (on.width, on.height), on.background)
    print_ = printed(rng, str(value), int(on.shorter * rng.uniform(0.32, 0.65)), pictures.ink(rng, colour))
    if print_.width > on.width * 0.95:
        print_ = print_.resize((int(on.width * 0.95), print_.height))
    at = (rng.randint(0, on.width - print_.width), rng.randint(0, max(0, on.height - print_.height)))
    image.paste(print_, at, print_)
    answers = {
        "image_number": [(rng.choice(NUMBER), str(value))],
        "image_colour": [(rng.choice(COLOUR).format(it=rng.choice(["number", "text"])), f"{colour.capitalize()}.")],
    }
    return pictures.weathered(rng, image), answers


View = Callable[[random.Random], tuple[Image.Image, dict[str, list[Asked]]]]

BY_ABILITY: dict[str, tuple[View, ...]] = {
    "image_colour": (one_figure, number),
    "image_shape": (one_figure,),
    "image_place": (one_figure,),
    "image_which": (some_figures,),
    "image_count": (many_figures,),
    "image_number": (number,),
    "image_describe": (one_figure, some_figures),
}
"""The pictures about which each ability is asked when it is judged."""
