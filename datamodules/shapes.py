"""Generated pictures for a first captioner without a download: coloured shapes, and what they say.

A scene is one shape, two different ones side by side, two to four of a kind, or some of a kind and
another one. Captions of the second name left and right, those of the last two a number.
"""

import io
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

from datamodules.captioning import CaptionDataModule
from seq2seq.errors import ConfigError, DataError

COLOURS = {
    "red": (225, 45, 40),
    "green": (35, 165, 65),
    "blue": (40, 85, 225),
    "yellow": (245, 215, 45),
    "purple": (150, 55, 190),
}
"""The colours of shapes, by their names, as red, green and blue of 255."""

FORMS = ("circle", "square", "triangle")
"""What shapes there are."""

_KINDS = [(colour, form) for colour in COLOURS for form in FORMS]
_NUMBERS = {2: "two", 3: "three", 4: "four"}
# Light enough for blue, dark enough for yellow.
_GREYS = (70, 190)
_GAP = 4
# A picture is drawn this many times as large, so that its edges are smooth.
_SUPERSAMPLING = 4
# Corners as shares of the radius: squares and triangles then look as large as a circle.
_CORNERS = {
    "square": ((-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)),
    "triangle": ((0.0, -1.1), (1.05, 0.75), (-1.05, 0.75)),
}

# Part of what decides whether files are made anew: raise it when scenes or captions change.
_GENERATION = 1
_RECORD = "settings.json"
_CAPTIONS = "captions.jsonl"
# A thousandth of what single shapes allow, the scarcest scenes: the search stays short.
_MAX_PICTURES = 100_000
# All words of the captions, and four special ids.
_VOCAB_SIZE = 41


class Shape(NamedTuple):
    """A shape and its place; lengths are in hundredths of the picture's side.

    Attributes:
        colour: A name of ``COLOURS``.
        form: One of ``FORMS``.
        column: Of the centre, from the left.
        row: Of the centre, from the top.
        radius: Nothing of it is further from the centre than 1.3 times this.
    """

    colour: str
    form: str
    column: int
    row: int
    radius: int


class Scene(NamedTuple):
    """What a picture shows, and what can be said of it.

    Attributes:
        shapes: None touches another.
        captions: All true, no two alike.
    """

    shapes: tuple[Shape, ...]
    captions: tuple[str, ...]


def generate_scenes(count: int, seed: int) -> list[Scene]:
    """Return scenes, a quarter of each sort.

    Args:
        count: How many; no two have the same shapes in the same places.
        seed: Of the choice.
    """
    generator = random.Random(seed)  # noqa: S311  # not for secrets
    sorts: tuple[Callable[[random.Random], Scene], ...] = (_one, _two, _several, _several_and_one)
    scenes: dict[tuple[Shape, ...], Scene] = {}
    while len(scenes) < count:
        scene = sorts[len(scenes) % len(sorts)](generator)
        scenes.setdefault(scene.shapes, scene)
    return list(scenes.values())


def _one(generator: random.Random) -> Scene:
    colour, form = kind = generator.choice(_KINDS)
    captions = (
        f"a {colour} {form}",
        f"one {colour} {form}",
        f"there is a {colour} {form}",
        f"a picture of a {colour} {form}",
        f"a {form} that is {colour}",
    )
    return Scene((_place(*kind, generator, radii=(12, 24)),), captions)


def _two(generator: random.Random) -> Scene:
    kinds = generator.sample(_KINDS, 2)
    while True:
        left, right = (_place(*kind, generator, radii=(11, 19)) for kind in kinds)
        # Neither above the other, or people would say that instead.
        if not _touch(left, right) and right.column - left.column > 2 * abs(right.row - left.row):
            break
    a, b = (f"a {shape.colour} {shape.form}" for shape in (left, right))
    captions = (
        f"{a} to the left of {b}",
        f"{b} to the right of {a}",
        f"{a} on the left and {b} on the right",
        f"{a} with {b} on its right",
        f"{b} with {a} on its left",
    )
    return Scene((left, right), captions)


def _several(generator: random.Random) -> Scene:
    (colour, form), number = generator.choice(_KINDS), generator.choice(list(_NUMBERS))
    many = f"{_NUMBERS[number]} {colour} {form}s"
    captions = (
        many,
        f"there are {many}",
        f"a group of {many}",
        f"a picture of {many}",
        f"{_NUMBERS[number]} {form}s that are {colour}",
    )
    return Scene(_scatter([(colour, form)] * number, generator), captions)


def _several_and_one(generator: random.Random) -> Scene:
    (kind, other), number = generator.sample(_KINDS, 2), generator.choice(list(_NUMBERS))
    many, one = f"{_NUMBERS[number]} {' '.join(kind)}s", f"a {' '.join(other)}"
    captions = (
        f"{many} and {one}",
        f"{one} and {many}",
        f"there are {many} and {one}",
        f"a picture of {many} and {one}",
        f"{many} with {one}",
    )
    return Scene(_scatter([kind] * number + [other], generator), captions)


def _scatter(kinds: list[tuple[str, str]], generator: random.Random) -> tuple[Shape, ...]:
    while True:
        shapes = tuple(_place(*kind, generator, radii=(9, 14)) for kind in kinds)
        if not any(_touch(*two) for two in combinations(shapes, 2)):
            return shapes


def _place(colour: str, form: str, generator: random.Random, radii: tuple[int, int]) -> Shape:
    radius = generator.randint(*radii)
    margin = round(1.1 * radius) + 1
    column, row = (generator.randint(margin, 100 - margin) for _ in range(2))
    return Shape(colour, form, column, row, radius)


def _touch(first: Shape, second: Shape) -> bool:
    reach = 1.1 * (first.radius + second.radius) + _GAP
    columns, rows = abs(first.column - second.column), abs(first.row - second.row)
    return max(columns, rows) < reach


def draw(scene: Scene, size: int, grey: int) -> Image.Image:
    """Return the picture of a scene.

    Args:
        scene: What to draw.
        size: Side of the picture, in pixels.
        grey: Brightness of what is behind the shapes, 0 to 255.
    """
    picture = Image.new("RGB", (size * _SUPERSAMPLING,) * 2, (grey,) * 3)
    pen = ImageDraw.Draw(picture)
    unit = size * _SUPERSAMPLING / 100
    for shape in scene.shapes:
        column, row, radius = (unit * length for length in shape[2:])
        if shape.form == "circle":
            pen.circle((column, row), radius, COLOURS[shape.colour])
        else:
            corners = _CORNERS[shape.form]
            pen.polygon(
                [(column + radius * x, row + radius * y) for x, y in corners],
                COLOURS[shape.colour],
            )
    return picture.reduce(_SUPERSAMPLING)
