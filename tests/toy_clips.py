"""A tiny corpus of labelled videos, saved as arrays: frame ``n`` can be told by its brightness."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from datamodules import VideoDataModule
from seq2seq.pictures import PictureGeometry
from seq2seq.videos import ClipSampling
from seq2seq.videos.frames import FramePreparation

RATE_HZ = 10
SIZE = 8
FRAMES = 10
SAMPLING = ClipSampling("uniform", clip_frames=5)
# Person, label and split of each video; the first row is v0.npy.
ROWS = [
    ("anna", "wave", "train"),
    ("anna", "sit down", "train"),
    ("ben", "wave", "train"),
    ("ben", "sit down", "train"),
    ("ben", "jump", "train"),
    ("carl", "sit down", "train"),
    ("carl", "jump", "train"),
    ("dora", "wave", "val"),
    ("dora", "jump", "val"),
    ("dora", "sit down", "val"),
    ("emma", "jump", "test"),
    ("emma", "wave", "test"),
]
CLASSES = ("jump", "sit down", "wave")


def of_split(split: str) -> list[int]:
    """Return the numbers of the videos of a split."""
    return [number for number, row in enumerate(ROWS) if row[2] == split]


def brightness(video: int, frame: int) -> int:
    return 10 * video + frame


def write_array(path: Path, video: int, count: int = FRAMES) -> Path:
    """Write a video; its left half is brighter by 100 than ``brightness``."""
    frames = np.stack([np.full((SIZE, SIZE), brightness(video, n)) for n in range(count)])
    frames[:, :, : SIZE // 2] += 100
    np.save(path, frames.astype(np.uint8))
    return path


def write_corpus(folder: Path, with_split: bool = True) -> Path:
    """Write videos and a table of them; return the table."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = ("path", "group", "label", "split")[: 4 if with_split else 3]
    rows = []
    for number, row in enumerate(ROWS):
        path = write_array(folder / f"v{number}.npy", number)
        rows.append((path.name, *row)[: len(columns)])
    with (folder / "videos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return folder / "videos.csv"


def module(source: Path, **options: Any) -> VideoDataModule:
    defaults = {"num_classes": 3, "stills_rate_hz": RATE_HZ, "batch_size": 3, "eval_batch_size": 2}
    return VideoDataModule(str(source), **{**defaults, **options})


def shown(
    source: Path, sampling: ClipSampling = SAMPLING, channels: int = 1, **options: Any
) -> VideoDataModule:
    data = module(source, **options)
    data.prepare_data()
    data.setup("fit")
    preparation = FramePreparation(PictureGeometry(SIZE, "squash"), channels)
    data.show_to(preparation, sampling, None)
    return data
