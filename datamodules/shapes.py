"""Generated pictures for a first captioner without a download: coloured shapes, and what they say.

A scene is one shape, two different ones side by side, or two to four of a kind. Captions of the
second sort name left and right, those of the last one a number.
"""

import io
import json
import random
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

from datamodules.base import option_problems
from datamodules.captioning import CaptionDataModule
from datamodules.generated import GeneratedFiles, make_folder, replace_file, write_once

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
_REACH = 1.1  # of the corners below
_GAP = 4  # between shapes, in hundredths of the picture's side
# A picture is drawn this many times as large, so that its edges are smooth.
_SUPERSAMPLING = 4
# Corners as shares of the radius, such that squares and triangles look as large as a circle.
_CORNERS = {
    "square": ((-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)),
    "triangle": ((0.0, -1.1), (1.05, 0.75), (-1.05, 0.75)),
}

# Part of what decides whether files are made anew: raise it when scenes or captions change.
_GENERATION = 2
_CAPTIONS = "captions.jsonl"
# A third of them are single shapes, of which there are seven hundred thousand.
_MAX_PICTURES = 100_000
# All words of the captions, and four special ids.
_VOCAB_SIZE = 35


class Shape(NamedTuple):
    """A shape and its place; lengths are in hundredths of the picture's side.

    Attributes:
        colour: A name of ``COLOURS``.
        form: One of ``FORMS``.
        column: Of the centre, from the left.
        row: Of the centre, from the top.
        radius: Of a circle; the others look as large.
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
        grey: Brightness of what is behind the shapes, 0 to 255.
    """

    shapes: tuple[Shape, ...]
    captions: tuple[str, ...]
    grey: int


_Content = tuple[tuple[Shape, ...], tuple[str, ...]]


def generate_scenes(count: int, seed: int) -> list[Scene]:
    """Return scenes, a third of each sort.

    Args:
        count: How many; no two have the same shapes in the same places.
        seed: Of the choice.
    """
    generator = random.Random(seed)  # noqa: S311  # not for secrets
    scenes: dict[tuple[Shape, ...], Scene] = {}
    while len(scenes) < count:
        shapes, captions = _SORTS[len(scenes) % len(_SORTS)](generator)
        scenes.setdefault(shapes, Scene(shapes, captions, generator.randint(*_GREYS)))
    return list(scenes.values())


def _one(generator: random.Random) -> _Content:
    colour, form = kind = generator.choice(_KINDS)
    captions = (
        f"a {colour} {form}",
        f"one {colour} {form}",
        f"there is a {colour} {form}",
        f"a picture of a {colour} {form}",
        f"a {form} that is {colour}",
    )
    return (_place(*kind, generator, radii=(12, 24)),), captions


def _two(generator: random.Random) -> _Content:
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
    return (left, right), captions


def _several(generator: random.Random) -> _Content:
    (colour, form), number = generator.choice(_KINDS), generator.choice(list(_NUMBERS))
    many = f"{_NUMBERS[number]} {colour} {form}s"
    captions = (
        many,
        f"there are {many}",
        f"a group of {many}",
        f"a picture of {many}",
        f"{_NUMBERS[number]} {form}s that are {colour}",
    )
    return _scatter(colour, form, number, generator), captions


_SORTS: tuple[Callable[[random.Random], _Content], ...] = (_one, _two, _several)


def _scatter(colour: str, form: str, number: int, generator: random.Random) -> tuple[Shape, ...]:
    """Place shapes of one kind anywhere, apart from each other."""
    shapes: list[Shape] = []
    while len(shapes) < number:
        shape = _place(colour, form, generator, radii=(9, 14))
        # From the first one on: beside those there may be no room for another.
        shapes = [] if any(_touch(shape, other) for other in shapes) else [*shapes, shape]
    return tuple(shapes)


def _place(colour: str, form: str, generator: random.Random, radii: tuple[int, int]) -> Shape:
    radius = generator.randint(*radii)
    margin = ceil(_REACH * radius)
    column, row = (generator.randint(margin, 100 - margin) for _ in range(2))
    return Shape(colour, form, column, row, radius)


def _touch(first: Shape, second: Shape) -> bool:
    distance = max(abs(first.column - second.column), abs(first.row - second.row))
    return distance < _REACH * (first.radius + second.radius) + _GAP


def draw_scene(scene: Scene, size: int) -> Image.Image:
    """Return the picture of a scene, in RGB.

    Args:
        scene: What to draw.
        size: Side of the picture, in pixels.
    """
    picture = Image.new("RGB", (size * _SUPERSAMPLING,) * 2, (scene.grey,) * 3)
    pen = ImageDraw.Draw(picture)
    unit = size * _SUPERSAMPLING / 100
    for colour, form, *lengths in scene.shapes:
        column, row, radius = (unit * length for length in lengths)
        if form == "circle":
            pen.circle((column, row), radius, COLOURS[colour])
        else:
            corners = [(column + radius * x, row + radius * y) for x, y in _CORNERS[form]]
            pen.polygon(corners, COLOURS[colour])
    return picture.reduce(_SUPERSAMPLING)


class ShapesDataModule(GeneratedFiles, CaptionDataModule):
    """Coloured shapes and their captions; generated, so that a first run needs no download.

    Every picture has five captions, all true, in other words each. The vocabulary is of words.

    Args:
        root: Folder to write the pictures and ``captions.jsonl`` to.
        train_count: Number of training pictures.
        val_count: Number of validation pictures.
        test_count: Number of test pictures; no split shares a scene with another.
        picture_size: Side of the pictures, in pixels.
        predict: Folder of pictures for ``seq2seq predict``; null for the test pictures.
        vocab_size: Number of words, four special ones included.
        captions_per_picture: How many captions of each picture an epoch has, chosen at random;
            null for all of them.
        batch_size: Number of pictures in a training batch.
        eval_batch_size: Number of pictures in any other batch.
        cache_dir: Folder for the list of checked pictures; null for ``.seq2seq_cache`` in
            ``root``.
        num_workers: Number of processes that prepare batches; 0 for the main one.
        seed: Of the scenes, the order of the batches, and the choice of captions.

    Raises:
        ConfigError: If options cannot work.
    """

    def __init__(
        self,
        root: str = "runs/data/shapes",
        train_count: int = 4000,
        val_count: int = 500,
        test_count: int = 500,
        picture_size: int = 64,
        predict: str | None = None,
        vocab_size: int = _VOCAB_SIZE,
        captions_per_picture: int | None = None,
        batch_size: int = 32,
        eval_batch_size: int = 128,
        cache_dir: str | None = None,
        num_workers: int = 0,
        seed: int = 1,
    ) -> None:
        self.root = Path(root)
        self.counts = {"train": train_count, "val": val_count, "test": test_count}
        self.picture_size = picture_size
        super().__init__(
            captions=str(self.root / _CAPTIONS),
            images=root,
            predict=str(self.root / "test") if predict is None else predict,
            vocab_size=vocab_size,
            vocabulary="word",
            captions_per_picture=captions_per_picture,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            cache_dir=cache_dir,
            num_workers=num_workers,
            seed=seed,
        )

    def generate(self) -> None:
        """Write the files, unless they are there with these settings."""
        settings = {"generation": _GENERATION, "seed": self.seed, "size": self.picture_size}
        names = [_CAPTIONS, *(name for split in self.counts for name in self._pictures_of(split))]
        write_once(self.root, settings | self.counts, names, self._write_splits, what="pictures")

    def _pictures_of(self, split: str) -> list[str]:
        return [f"{split}/scene-{number:05}.png" for number in range(self.counts[split])]

    def _write_splits(self) -> None:
        scenes = iter(generate_scenes(sum(self.counts.values()), self.seed))
        lines = []
        for split in self.counts:
            names = self._pictures_of(split)
            make_folder(self.root, names, "scene-*.png")
            for name, scene in zip(names, scenes, strict=False):
                png = io.BytesIO()
                draw_scene(scene, self.picture_size).save(png, "png")
                replace_file(self.root / name, png.getvalue())
                lines.append({"image": name, "split": split, "captions": scene.captions})
        content = "".join(f"{json.dumps(line)}\n" for line in lines)
        replace_file(self.root / _CAPTIONS, content.encode())

    def _problems(self) -> Iterator[str]:
        """Yield what is wrong with the options, one sentence each."""
        yield from super()._problems()
        yield from option_problems({"picture_size": (self.picture_size, 16)}, {})
        if min(self.counts.values()) < 1 or sum(self.counts.values()) > _MAX_PICTURES:
            yield (
                "--data.train_count, --data.val_count and --data.test_count must be 1 or more, "
                f"and {_MAX_PICTURES:,} or less together."
            )
