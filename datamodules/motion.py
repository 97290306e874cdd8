"""Generated clips for a first video classifier without a download, where only the order tells.

The frames of a clip are drawn without regard to its label: one shape is once at each place of a
row, another one at each place of a column, some frames have a light background and some a dark one,
and chance decides which of these go together. The label is the order they are put in: either one
of the shapes moves steadily, or each light comes at one go; the rest is shuffled. So whatever looks
at frames one by one, or at all of them in any order, is at chance.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.generated import GeneratedFiles, make_folder, replace_file, write_once
from datamodules.video import VideoDataModule

Pixels = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Names = NDArray[np.str_]
Label = tuple[str, str]

FRAMES = 16
"""Frames of a clip."""

SIZE = 32
"""Width and height of a frame, in pixels; what leaves it comes in again on the other side."""

# From one place to the next, in pixels: a slow shape has been at all of them when the clip ends.
_STEP = SIZE // FRAMES
# Steps per frame. Three is odd: a fast shape goes round three times and is nowhere twice.
_SPEEDS = {"glide": 1, "dash": 3}
_DIRECTIONS = ("left", "right", "up", "down")
# By how much a light changes the brightness of the background.
_LIGHTS = {"flash": 40, "dark": -40}
_LIGHT_FRAMES = 3

LABELS = (
    *((verb, direction) for verb in _SPEEDS for direction in _DIRECTIONS),
    ("flash", "dark"),
    ("dark", "flash"),
)
"""What the order of frames can mean: how fast a shape goes where, or which light comes first."""

# Of 255; of shapes and of the background without a light.
_SHAPE_BRIGHTNESS = (170, 240)
_BACKGROUND_BRIGHTNESS = (70, 100)
_NOISE_STD = 8.0
_RADII = (2.5, 4.5)  # pixels

# Part of what decides whether files are made anew: raise it when clips or labels change.
_GENERATION = 1
_TABLE = "clips.csv"
# They take 16 KB each.
_MAX_CLIPS = 100_000
# By how many labels a clip has: the pairs of words as one each, or the words.
_CLASSES = {1: len(LABELS), 2: len({word for words in LABELS for word in words})}


class FrameBag(NamedTuple):
    """The frames of a clip, and what is where in them.

    Attributes:
        frames: ``(FRAMES, SIZE, SIZE)``; one shape is a step further to the right in each.
        rows: How many steps the other shape is below its first place, in each frame; a permutation.
        lights: Name of the light in each frame; empty for none.
    """

    frames: Pixels
    rows: Numbers
    lights: Names


def draw_frames(generator: np.random.Generator) -> FrameBag:
    """Return frames that have no label yet, and can get any."""
    columns, rows = np.arange(FRAMES), generator.permutation(FRAMES)
    lit = [light for light in _LIGHTS for _ in range(_LIGHT_FRAMES)]
    lights = generator.permutation([*lit, *[""] * (FRAMES - len(lit))])
    frames = generator.normal(0, _NOISE_STD, (FRAMES, SIZE, SIZE))
    background = generator.integers(*_BACKGROUND_BRIGHTNESS)
    content = np.full_like(frames, background)
    content += np.array([_LIGHTS.get(light, 0) for light in lights])[:, None, None]
    pixels, still = np.arange(SIZE), np.zeros_like(columns)
    for right, down in ((columns, still), (still, rows)):
        shape = _draw_shape(generator)
        brightness = generator.integers(*_SHAPE_BRIGHTNESS)
        x, y = generator.integers(SIZE, size=2)
        # For each frame, which row and column of the shape those of the frame show.
        shape_rows = (pixels - y - _STEP * down[:, None]) % SIZE
        shape_columns = (pixels - x - _STEP * right[:, None]) % SIZE
        content[shape[shape_rows[:, :, None], shape_columns[:, None, :]]] = brightness
    return FrameBag((content + frames).round().clip(0, 255).astype(np.uint8), rows, lights)


def _draw_shape(generator: np.random.Generator) -> NDArray[np.bool_]:
    """Return which pixels a shape covers if its middle is the top left one."""
    radius = generator.uniform(*_RADII)
    distance = np.minimum(np.arange(SIZE), SIZE - np.arange(SIZE))
    x, y = np.meshgrid(distance, distance)
    square = np.maximum(x, y) < 0.9 * radius
    forms = [
        np.hypot(x, y) < radius,
        square,
        x + y < 1.2 * radius,
        square & (np.minimum(x, y) < 0.4 * radius),
    ]
    form: NDArray[np.bool_] = forms[generator.integers(len(forms))]
    return form


def order_frames(bag: FrameBag, label: Label, generator: np.random.Generator) -> Numbers:
    """Return in which order the frames of a bag mean a label.

    Args:
        bag: The frames.
        label: One of ``LABELS``.
        generator: Of what the label leaves open: when the lights come, and all else beside them.
    """
    verb, other = label
    if verb in _LIGHTS:
        shuffled = generator.permutation(FRAMES)
        lights = bag.lights[shuffled]
        first, second, rest = (shuffled[lights == light] for light in (verb, other, ""))
        starts = np.sort(generator.integers(len(rest), size=2, endpoint=True))
        before, between, after = np.split(rest, starts)
        return np.concatenate([before, first, between, second, after])
    steady = np.argsort(bag.rows) if other in ("up", "down") else np.arange(FRAMES)
    order = steady[_SPEEDS[verb] * np.arange(FRAMES) % FRAMES]
    return order[::-1] if other in ("left", "up") else order


def generate_clip(label: Label, generator: np.random.Generator) -> Pixels:
    """Return a clip, ``(FRAMES, SIZE, SIZE)``; which frames it has does not depend on the label.

    Args:
        label: One of ``LABELS``.
        generator: Of the frames, and of what the label leaves open of their order.
    """
    bag = draw_frames(generator)
    return bag.frames[order_frames(bag, label, generator)]


class MotionDataModule(GeneratedFiles, VideoDataModule):
    """Moving shapes, in which only the order of frames tells the label; generated.

    A label says how fast a shape goes where (``glide left`` to ``dash down``), or which of two
    lights comes first (``flash dark``, ``dark flash``). All occur equally often.

    Args:
        root: Folder to write the clips to, 16 KB each, and ``clips.csv``.
        train_count: Number of training clips.
        val_count: Number of validation clips.
        test_count: Number of test clips.
        label_steps: 1 to have pairs of words as labels, 2 to have the words, one after the other.
        num_classes: Number of labels: 10 pairs, or 8 words.
        predict: Video, or folder of videos, for ``seq2seq predict``; null for the test clips.
        cache_frames: Keep all frames as the network sees them in one file, which is read faster.
        batch_size: Number of clips in a training batch.
        eval_batch_size: Number of clips in any other batch.
        cache_dir: Folder for that file; null for ``.seq2seq_cache`` in ``root``.
        num_workers: Number of processes that prepare batches; 0 for the main one.
        seed: Of the clips, and of the order of the batches.

    Raises:
        ConfigError: If options cannot work.
    """

    def __init__(
        self,
        root: str = "runs/data/motion",
        train_count: int = 4000,
        val_count: int = 400,
        test_count: int = 400,
        label_steps: int = 1,
        num_classes: int = _CLASSES[1],
        predict: str | None = None,
        cache_frames: bool = True,
        batch_size: int = 16,
        eval_batch_size: int = 64,
        cache_dir: str | None = None,
        num_workers: int = 0,
        seed: int = 1,
    ) -> None:
        self.folder = Path(root)
        self.counts = {"train": train_count, "val": val_count, "test": test_count}
        super().__init__(
            source=str(self.folder / _TABLE),
            num_classes=num_classes,
            format="csv",
            label_separator="" if label_steps == 1 else " ",
            label_steps=label_steps,
            predict=str(self.folder / "test") if predict is None else predict,
            cache_frames=cache_frames,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            cache_dir=cache_dir,
            num_workers=num_workers,
            seed=seed,
        )

    def generate(self) -> None:
        """Write the files, unless they are there with these settings."""
        settings = {"generation": _GENERATION, "seed": self.seed}
        names = [_TABLE, *(name for split in self.counts for name in self._clips_of(split))]
        write_once(self.folder, settings | self.counts, names, self._write_splits, what="clips")

    def _clips_of(self, split: str) -> list[str]:
        return [f"{split}/clip-{number:05}.npy" for number in range(self.counts[split])]

    def _write_splits(self) -> None:
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["path", "label", "split"])
        for place, split in enumerate(self.counts):
            names = self._clips_of(split)
            make_folder(self.folder, names, "clip-*.npy")
            for number, name in enumerate(names):
                label = LABELS[number % len(LABELS)]
                generator = np.random.default_rng((self.seed, place, number))
                content = io.BytesIO()
                np.save(content, generate_clip(label, generator))
                replace_file(self.folder / name, content.getvalue())
                rows.writerow([name, " ".join(label), split])
        replace_file(self.folder / _TABLE, table.getvalue().encode())

    def _problems(self) -> Iterator[str]:
        """Yield what is wrong with the options, one sentence each."""
        yield from super()._problems()
        if self.label_steps not in _CLASSES:
            yield f"--data.label_steps={self.label_steps} cannot be: a label has 1 or 2 steps."
        elif self.num_classes != _CLASSES[self.label_steps]:
            yield (
                f"--data.num_classes={self.num_classes}: with --data.label_steps="
                f"{self.label_steps} there are {_CLASSES[self.label_steps]} labels. Set that."
            )
        if self.counts["train"] < len(LABELS):
            yield (
                f"--data.train_count={self.counts['train']}: training needs a clip of each label, "
                f"{len(LABELS)} or more."
            )
        if min(self.counts.values()) < 1 or sum(self.counts.values()) > _MAX_CLIPS:
            yield (
                "--data.train_count, --data.val_count and --data.test_count must be 1 or more, "
                f"and {_MAX_CLIPS:,} or less together."
            )
