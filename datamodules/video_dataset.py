"""Videos with their labels as examples, and how they become a batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.base import SequenceDataset, problems_of
from datamodules.clip_augmentation import ClipAugmentation
from datamodules.clip_sources import ClipSource
from datamodules.quarantine import Quarantine
from seq2seq.batches import Batch, VideoInput
from seq2seq.errors import DataError
from seq2seq.videos import ClipSampling
from seq2seq.videos.frames import SampleTimes


class ClipExample(NamedTuple):
    """Clips of a video, and what it shows.

    Attributes:
        clips: As ``ClipSource`` gives them.
        target: Ids of its labels, int64 ``(steps,)``; None where they are not known.
        position: Index in the split.
        label: Its labels as text; empty where they are not known.
        problem: Why it could not be read, where the clips are blank.
    """

    clips: Tensor
    target: Tensor | None
    position: int
    label: str
    problem: str | None = None


class ClipDataset(SequenceDataset[ClipExample]):
    """The labelled videos of a split.

    In the place of a video that cannot be read comes the next one that can, as what it is: with its
    own labels and its own position, so that a metric which drops repetitions does not count it
    twice.

    Args:
        source: Gives their clips.
        targets: Ids of their labels, int64 ``(videos, steps)``.
        labels: Their labels as text.
        paths: Their files.
        sampling: Which frames make a clip.
        augmentation: How clips are changed; None for evaluation, where a video gives all its clips.
        quarantine: Notes the videos that cannot be read; None to raise the error of the first one.
        seed: Of the random choices.
    """

    def __init__(
        self,
        source: ClipSource,
        targets: Tensor,
        labels: Sequence[str],
        paths: Sequence[Path],
        sampling: ClipSampling,
        augmentation: ClipAugmentation | None,
        quarantine: Quarantine | None,
        seed: int = 1,
    ) -> None:
        super().__init__(seed)
        self._source = source
        self._targets = targets
        self._labels = labels
        self._paths = paths
        self._sampling = sampling
        self._augmentation = augmentation
        self._quarantine = quarantine

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> ClipExample:
        for place in (*range(index, len(self)), *range(index)):
            try:
                clips = self._clips(place)
            except DataError as error:
                if self._quarantine is None:
                    raise
                self._quarantine.note(self._paths[place], str(error))
            else:
                return ClipExample(clips, self._targets[place], place, self._labels[place])
        raise DataError("None of the videos can be read. Give some that can.")

    def _clips(self, place: int) -> Tensor:
        if self._augmentation is None:
            return self._source.read_clips(place, self._sampling.evaluation_times)
        generator = self.generator(place)
        seed = int(generator.integers(2**63))
        clips = self._source.read_clips(place, _training_times(self._sampling, seed))
        return self._augmentation(clips, generator) if self._augmentation.is_active else clips


def _training_times(sampling: ClipSampling, seed: int) -> SampleTimes:
    def sample(start_seconds: float, end_seconds: float) -> list[list[float]]:
        generator = torch.Generator().manual_seed(seed)
        return [sampling.training_times(start_seconds, end_seconds, generator)]

    return sample


class VideoDataset(SequenceDataset[ClipExample]):
    """Videos without labels, as prediction wants them.

    Args:
        source: Gives their clips.
        size: How many there are.
        sampling: Which frames make a clip.
        blank: What the frames of a video are that cannot be read, uint8 ``(channels, size, size)``;
            None to raise its error.
    """

    def __init__(
        self,
        source: ClipSource,
        size: int,
        sampling: ClipSampling,
        blank: Tensor | None = None,
    ) -> None:
        super().__init__(seed=0)
        self._source = source
        self._size = size
        self._sampling = sampling
        self._blank = blank

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> ClipExample:
        try:
            clips = self._source.read_clips(index, self._sampling.evaluation_times)
        except DataError as error:
            if self._blank is None:
                raise
            shape = (self._sampling.clips, self._sampling.clip_frames, *self._blank.shape)
            return ClipExample(self._blank.expand(shape), None, index, "", str(error))
        return ClipExample(clips, None, index, "")


def collate(examples: list[ClipExample]) -> Batch:
    """Return the examples as one batch; all clips are equally long."""
    frames = torch.stack([example.clips for example in examples])
    batch, clips, time = frames.shape[:3]
    targets = [example.target for example in examples if example.target is not None]
    return Batch(
        inputs=VideoInput(frames, torch.full((batch, clips), time)),
        target=torch.stack(targets) if targets else None,
        indices=torch.tensor([example.position for example in examples]),
        references=tuple((example.label,) for example in examples if targets),
        problems=problems_of([example.problem for example in examples]),
    )
