"""Where clips come from: files, frames that were decoded before, or features of those."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from datamodules.faults import some_of
from datamodules.quarantine import Quarantine
from seq2seq.errors import DataError
from seq2seq.feature_cache import FeatureArray
from seq2seq.videos.frames import FrameReader, SampleTimes, VideoPart, span_of
from seq2seq.videos.store import FrameStore


class ClipSource(Protocol):
    """Gives clips of videos, by their place in a list."""

    def read_clips(self, place: int, sample: SampleTimes) -> Tensor:
        """Return clips of a video.

        Args:
            place: Of the video.
            sample: Gives the times of the clips.

        Returns:
            uint8 ``(clips, time, channels, size, size)``, or a network's features of the frames,
            ``(clips, time, cells, channels)``.

        Raises:
            DataError: If it cannot be read.
        """
        ...


class ClipFiles:
    """Clips from files, each decoded when it is wanted.

    Args:
        reader: How frames are read.
        parts: The videos.
    """

    def __init__(self, reader: FrameReader, parts: Sequence[VideoPart]) -> None:
        self._reader = reader
        self._parts = parts

    def read_clips(self, place: int, sample: SampleTimes) -> Tensor:
        """Return clips of a video."""
        return self._reader.read_clips(self._parts[place], sample)


class StoredClips:
    """Clips of frames that were decoded before, or of features of them.

    Args:
        store: The frames.
        kept: Which parts of it there are, in order.
        features: Features of its frames; None to give the frames.
    """

    def __init__(
        self, store: FrameStore, kept: Sequence[int], features: FeatureArray | None = None
    ) -> None:
        self._store = store
        self._kept = kept
        self._features = features

    def read_clips(self, place: int, sample: SampleTimes) -> Tensor:
        """Return clips of a video."""
        part = self._kept[place]
        if self._features is None:
            return self._store.read_clips(part, sample)
        clips = [
            torch.stack([self._features[int(frame)] for frame in self._store.places(part, times)])
            for times in sample(*self._store.span(part))
        ]
        return torch.stack(clips)


def good_parts(
    store: FrameStore, paths: Sequence[Path], role: str, quarantine: Quarantine | None
) -> list[int]:
    """Return which parts of a store could be read.

    Args:
        store: The frames.
        paths: The file of each part.
        role: Name of the split.
        quarantine: Notes the others; None where they are an error.

    Raises:
        DataError: If some could not be read, and there is no quarantine, or too many for it.
    """
    problems = {paths[place]: problem for place, problem in store.problems.items()}
    if problems and quarantine is None:
        listed = some_of((f"{path}: {problem}" for path, problem in problems.items()), "\n  - ")
        raise DataError(
            f"{len(problems)} of {len(set(paths))} videos of the {role} split cannot be read:\n"
            f"  - {listed}\n"
            "Mend them, or leave them out with --data.on_bad_video quarantine."
        )
    for path, problem in problems.items():
        assert quarantine is not None
        quarantine.note(path, problem)
    return [place for place in range(len(paths)) if place not in store.problems]


def read_whole(reader: FrameReader, path: Path, parts: Sequence[VideoPart]) -> None:
    """Decode a video to its end, to see whether it is sound.

    Args:
        reader: How it is read; told of a broken tail that is cut off.
        path: The video.
        parts: What is used of it.

    Raises:
        DataError: If it cannot be read, or ends before a part begins.
    """
    with reader.open(path) as video:
        for _ in video.iter_frames():
            pass
        for part in parts:
            span_of(video, part)
        reader.tell_cut(video)
