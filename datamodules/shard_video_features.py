"""Features of the frames of videos, which a frozen network has made, in shards."""

import io
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.shard_features import array_bytes, as_features, index_entry
from datamodules.shard_plan import ItemFile, ShardItem, ShardSource, made_file
from datamodules.shards import Shards
from seq2seq.errors import ConfigError, DataError
from seq2seq.feature_cache import FeatureNetwork, write_header
from seq2seq.videos.frames import FrameReader, SampleTimes, VideoPart, span_of
from seq2seq.videos.store import read_shown, shown_at

# The files of a sample: the features of all its frames, float16 (frames, cells, channels); and when
# each is shown and when the video ends, float64 (frames + 1,), seconds.
_FRAMES = "npy"
_TIMES = "times.npy"
# Frames that tell the frame rate of a video.
_FIRST = 5
# Frames that are in memory at a time: whole batches of a network on any device.
_CHUNK = 64
# Features of a longer video wait on disk until all of them are there.
_MEMORY_BYTES = 1 << 26


def video_feature_source(
    videos: ShardSource, network: FeatureNetwork, reader: FrameReader
) -> ShardSource:
    """Return the features of videos as ``write_shards`` takes them.

    Args:
        videos: What ``video_source`` gave.
        network: What makes the features.
        reader: How frames are read, as the network wants them.
    """
    entry = index_entry(network, stills_rate_hz=reader.stills_rate_hz)
    return as_features(videos, "video features", VideoFeatureFiles(network, reader), entry)


class VideoFeatureFiles:
    """What a frozen network makes of the frames of videos, as files to be stored in their place.

    Of each video it is the frames that its parts show, as a ``FrameStore`` keeps them.

    Args:
        network: The network.
        reader: How frames are read, as the network wants them.
    """

    def __init__(self, network: FeatureNetwork, reader: FrameReader) -> None:
        self._network = network
        self._reader = reader

    def sizes(self, item: ShardItem) -> list[int]:
        """Return about how many bytes each file of a video has, from its first frames and length.

        To count its frames would be to read all of it; that is done when they are made.
        """
        parts = _parts_of(item)
        try:
            with self._reader.open(item.path) as video:
                times = [frame.time_seconds for frame in islice(video.iter_frames(), _FIRST)]
                seconds = sum(end - start for start, end in (span_of(video, p) for p in parts))
                seconds = min(seconds, video.duration_seconds)
        except DataError:  # which is told when it is to be made
            return []
        intervals = len(times) - 1
        count = math.ceil(seconds * intervals / (times[-1] - times[0])) if intervals else 1
        return [
            len(self._header(count)) + count * self._frame_bytes(),
            len(array_bytes(np.zeros(count + 1))),
        ]

    def make(
        self, items: Sequence[ShardItem]
    ) -> Iterator[AbstractContextManager[Sequence[ItemFile]]]:
        """Yield for each video of a shard what gives its files, or raises a ``DataError``."""
        return map(self._make, items)

    @contextmanager
    def _make(self, item: ShardItem) -> Iterator[list[ItemFile]]:
        parts = _parts_of(item)
        with (
            tempfile.SpooledTemporaryFile(_MEMORY_BYTES) as file,
            self._reader.open(item.path) as video,
        ):
            file.write(self._header(0))
            times: list[float] = []
            frames = read_shown(self._reader, video, parts)
            while chunk := list(islice(frames, _CHUNK)):
                times += [frame.time_seconds for frame in chunk]
                for features in self._network.compute_features([frame.pixels for frame in chunk]):
                    file.write(features.tobytes())
            for part in parts:  # of which each has to begin before the end
                span_of(video, part)
            _, end = span_of(video, VideoPart(item.path))
            self._reader.tell_cut(video)
            size = file.tell()
            header = self._header(len(times))
            assert len(header) + len(times) * self._frame_bytes() == size
            file.seek(0)
            file.write(header)
            file.seek(0)
            stored = ItemFile(_FRAMES, f".{_FRAMES}", size, lambda: file)
            yield [stored, made_file(_TIMES, array_bytes(np.array([*times, end])))]

    def _header(self, count: int) -> bytes:
        """Return what the features of so many frames begin with."""
        stream = io.BytesIO()
        write_header(stream, (count, *self._network.feature_shape))
        return stream.getvalue()

    def _frame_bytes(self) -> int:
        return 2 * math.prod(self._network.feature_shape)


class ClipFeatures:
    """Features of the frames of clips, out of shards that have them of all frames.

    Args:
        shards: What holds them.
        parts: The videos, by the paths of their samples.
    """

    def __init__(self, shards: Shards, parts: Sequence[VideoPart]) -> None:
        self._shards = shards
        self._parts = parts

    def read_clips(self, place: int, sample: SampleTimes) -> Tensor:
        """Return clips of a video."""
        path, start, part_end = self._parts[place]
        *stamps, end = self._shards.read_array(path, _TIMES)
        clips = sample(start, min(end, math.inf if part_end is None else part_end))
        frames = shown_at(np.array(stamps), [time for clip in clips for time in clip])
        rows = torch.from_numpy(self._shards.read_rows(path, _FRAMES, frames))
        return rows.view(len(clips), -1, *rows.shape[1:])


def check_stills_rate(source: str, entry: Mapping[str, Any], stills_rate_hz: float) -> None:
    """Check that features are of stills at the rate that they are to be shown at.

    Args:
        source: Where they are, for the message.
        entry: What the index says of them.
        stills_rate_hz: The rate, frames per second.

    Raises:
        ConfigError: If they were made at another one.
    """
    found = entry["stills_rate_hz"]
    if found != stills_rate_hz:
        raise ConfigError(
            f"{source}: its features were made with --data.stills_rate_hz {found:g}, and now it is "
            f"{stills_rate_hz:g}. Set it to {found:g}, or run seq2seq-prepare with this recipe."
        )


def _parts_of(item: ShardItem) -> list[VideoPart]:
    return [VideoPart(item.path, known["start"], known["end"]) for _, known in item.samples]
