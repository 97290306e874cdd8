"""Tiny classifiers of videos: for training on ``toy_clips``, and as checkpoints for prediction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from conftest import trainer
from PIL import Image
from toy_captions import BACKBONE
from toy_clips import CLASSES, SIZE
from toy_videos import RATE_HZ, picture, write_video

from datamodules import VideoDataModule
from seq2seq.tasks.options import Optimization
from seq2seq.tasks.video import VideoClassifier
from seq2seq.tokenizers import LabelVocabulary

NAMES = ("clap", "jump", "push", "run", "sit", "turn", "wave")
FRAMES = 12  # of every video
# A clip is all frames of a video.
WHOLE = {"sampling": "dense", "frame_rate_hz": RATE_HZ, "clip_frames": FRAMES}
# In the order in which a folder is read.
GOOD = ["a.mkv", "b.npy", "c/d.avi", "frames"]
BAD = ["e.mp4", "empty.avi"]
ALL = ["a.mkv", "b.npy", "c/d.avi", "e.mp4", "empty.avi", "frames"]


def classifier(**options: Any) -> VideoClassifier:
    """Return a classifier that learns the corpus, in which videos differ in brightness."""
    defaults = {
        "num_classes": len(CLASSES),
        "frame_widths": [8],
        "image_size": SIZE,
        "image_channels": 1,
        "sampling": "segment",
        "clip_frames": 4,
        "clips": 2,
        "hidden_size": 6,
        "memory_size": 9,
        "decoder_size": 11,
        "dropout": 0.0,
        "optimization": Optimization(learning_rate=0.01),
    }
    return VideoClassifier(**{**defaults, **options})


def with_backbone(**options: Any) -> VideoClassifier:
    """Return one that sees frames through a frozen network."""
    network = {"frame_network": BACKBONE, "backbone_layer": "features.3", "image_size": 32}
    return classifier(**{**network, "image_channels": 3, "backbone_weights": None, **options})


def fit(
    make_trainer: Callable[..., pl.Trainer],
    task: VideoClassifier,
    data: VideoDataModule,
    steps: int = 3,
    **options: Any,
) -> pl.Trainer:
    """Train for some steps, by default without validation; return the trainer."""
    torch.manual_seed(1)
    fitting = make_trainer(max_steps=steps, max_epochs=-1, **{"limit_val_batches": 0, **options})
    fitting.fit(task, data)
    return fitting


def assert_equal_weights(one: VideoClassifier, other: VideoClassifier, **tolerance: float) -> None:
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, msg=name, **tolerance)


def save_classifier(folder: Path, **options: Any) -> Path:
    """Write the checkpoint of a classifier that has learned nothing; return its path."""
    torch.manual_seed(3)
    defaults = {
        "num_classes": len(NAMES),
        "frame_widths": [8],
        "image_size": 16,
        "hidden_size": 8,
        "memory_size": 9,
        "decoder_size": 9,
        "stills_rate_hz": RATE_HZ,
    }
    task = VideoClassifier(**{**defaults, **WHOLE, **options})
    task.tokenizers = {"target": LabelVocabulary.of(NAMES)}
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter)  # so that it tells videos apart
    saving = trainer(folder)
    saving.strategy.connect(task)
    saving.save_checkpoint(folder / "classifier.ckpt")
    return folder / "classifier.ckpt"


def pixels(start: int) -> np.ndarray:
    return np.stack([picture(start + number, 48, 32) for number in range(FRAMES)])


def write_videos(root: Path) -> Path:
    """Fill a folder with videos of every kind, good and bad ones, and another file."""
    (root / "c").mkdir()
    (root / "frames").mkdir()
    write_video(root / "a.mkv", "ffv1", count=FRAMES)
    write_video(root / "c" / "d.avi", "mpeg4", count=FRAMES, size=(64, 48))
    np.save(root / "b.npy", pixels(11))
    for number, frame in enumerate(pixels(5)):
        Image.fromarray(frame).save(root / "frames" / f"{number}.png")
    (root / "empty.avi").write_bytes(b"")
    (root / "e.mp4").write_text("no video")
    (root / "notes.md").write_text("# Notes")
    return root
