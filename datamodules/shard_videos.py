"""Labelled videos as samples of shards, and back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import av
from torch import Tensor

from datamodules.clip_sources import read_whole
from datamodules.quarantine import Quarantine
from datamodules.shard_captions import relative_name
from datamodules.shard_plan import ShardItem, ShardSource
from datamodules.shard_table import Mapped, Sample
from datamodules.shards import Shards
from datamodules.video_formats import VideoEntry
from seq2seq.videos.frames import FrameReader, SampleTimes, VideoPart


def video_source(
    splits: Mapping[str, Sequence[VideoEntry]],
    folder: Path,
    reader: FrameReader,
    quarantines: Mapping[str, Quarantine | None],
    seed: int,
) -> ShardSource:
    """Return labelled videos as ``write_shards`` takes them; one with several parts only once.

    Args:
        splits: The videos of each split.
        folder: What their names are below.
        reader: How they are read, to see whether they are sound.
        quarantines: Of each split, what notes those that are not; None where they are errors.
        seed: Of their order in the shards.
    """
    items = list(_items(splits, folder, reader))
    noted = {split: quarantine for split, quarantine in quarantines.items() if quarantine}
    settings = (reader.broken_tail, reader.stills_rate_hz, av.__version__)
    return ShardSource("videos", items, seed, noted, settings)


def video_entries(shards: Shards, split: str) -> Sequence[VideoEntry]:
    """Return the labelled videos of a split; none where there is no such split."""
    return Mapped(shards.samples(split), _video_entry)


def part_of(entry: VideoEntry) -> VideoPart:
    """Return which part of which video is labelled."""
    return VideoPart(entry.path, entry.start_seconds, entry.end_seconds)


class ClipShards:
    """Clips from videos in shards, each decoded when it is wanted.

    Args:
        shards: What holds them.
        reader: How frames are read.
        parts: The videos, by the paths of their samples.
    """

    def __init__(self, shards: Shards, reader: FrameReader, parts: Sequence[VideoPart]) -> None:
        self._shards = shards
        self._reader = reader
        self._parts = parts

    def read_clips(self, place: int, sample: SampleTimes) -> Tensor:
        """Return clips of a video."""
        part = self._parts[place]
        with self._shards.extracted(part.path) as path:
            reader = _telling_as(part.path, self._reader)
            return reader.read_clips(part._replace(path=path), sample)


def read_shard(shards: Shards, reader: FrameReader, path: Path, parts: Sequence[VideoPart]) -> None:
    """Decode a video in a shard to its end, as ``read_whole`` does.

    Raises:
        DataError: If it cannot be read, or ends before a part begins.
    """
    with shards.extracted(path) as place:
        read_whole(reader, place, [part._replace(path=place) for part in parts])


def _telling_as(path: Path, reader: FrameReader) -> FrameReader:
    """Return a reader that tells of a cut video by a path which it keeps from read to read."""
    tell = reader.on_cut
    return reader if tell is None else replace(reader, on_cut=lambda _, end: tell(path, end))


def _items(
    splits: Mapping[str, Sequence[VideoEntry]], folder: Path, reader: FrameReader
) -> Iterator[ShardItem]:
    for split, entries in splits.items():
        places: dict[Path, list[int]] = {}
        for place, entry in enumerate(entries):
            places.setdefault(entry.path, []).append(place)
        for path, own in places.items():
            check = partial(read_whole, reader, path, [part_of(entries[place]) for place in own])
            samples = tuple((place, _values(entries[place])) for place in own)
            yield ShardItem(split, path, relative_name(path, folder), samples, check)


def _values(entry: VideoEntry) -> dict[str, Any]:
    return {
        "labels": entry.labels,
        "start": entry.start_seconds,
        "end": entry.end_seconds,
        "group": entry.group,
        "place": entry.place,
    }


def _video_entry(sample: Sample) -> VideoEntry:
    values = sample.values
    return VideoEntry(
        sample.path,
        tuple(values["labels"]),
        values["start"],
        values["end"],
        values["group"],
        sample.split,
        values["place"],
    )
