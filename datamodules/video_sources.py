"""Where labelled videos, or features of them, are: in files, or in shards."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.check import CutOff
from datamodules.clip_sources import ClipFiles, ClipSource, read_whole
from datamodules.shard_features import check_features
from datamodules.shard_table import Mapped
from datamodules.shard_video_features import ClipFeatures, check_stills_rate
from datamodules.shard_videos import ClipShards, part_of, read_shard, video_entries
from datamodules.shards import Shards
from datamodules.video_files import VideoFormat, read_videos, split_videos
from datamodules.video_formats import SPLITS, VideoEntry
from datamodules.video_labels import check_label_steps
from seq2seq.errors import ConfigError
from seq2seq.feature_cache import FeatureNetwork
from seq2seq.videos.frames import FrameReader, VideoPart

Splits = Mapping[str, Sequence[VideoEntry]]
"""The videos of each split, by its name."""


class VideoFiles:
    """Labelled videos in files.

    Args:
        source: Folder of class folders, table, or split list.
        root: Folder of the videos that a file names; None for the file's own.
        format: Format of the source.
        label_separator: What is between the labels of a video, in a table.
        label_steps: How many each has.
        shares: Share of ``val`` and of ``test`` in a source that names no splits.
        val_groups: Groups that become validation, in place of a share.
        seed: Of the choice.

    Attributes:
        splits: The videos of each split, bad ones included.

    Raises:
        ConfigError: If the options of the splits contradict the source.
        DataError: If the source cannot be used.
    """

    def __init__(
        self,
        source: Path,
        root: Path | None,
        format: VideoFormat,  # noqa: A002  # the name of the option
        label_separator: str,
        label_steps: int,
        shares: Mapping[str, float],
        val_groups: Sequence[str],
        seed: int,
    ) -> None:
        entries = read_videos(source, root, format, label_separator)
        check_label_steps(source, entries, label_steps)
        self.splits: Splits = split_videos(
            entries,
            val_share=shares["val"],
            test_share=shares["test"],
            val_groups=val_groups,
            seed=seed,
        )

    def shard_numbers(self, *splits: str) -> None:
        """Return None: files are in no shards."""

    def read(self, reader: FrameReader, path: Path, parts: Sequence[VideoPart]) -> None:
        """Decode a video to its end, to see whether it is sound; see ``read_whole``."""
        read_whole(reader, path, parts)

    def clips(
        self,
        reader: FrameReader,
        entries: Sequence[VideoEntry],
        network: FeatureNetwork | None,  # noqa: ARG002  # files have no features
    ) -> ClipSource:
        """Return what gives clips of videos, decoding them each time."""
        return ClipFiles(reader, [part_of(entry) for entry in entries])


class VideoShards:
    """Labelled videos in shards, or features of their frames.

    Args:
        source: Folder or URL of the shards.
        cache: Folder of what is fetched from a URL.
        cache_gb: As for ``Shards``.
        window: As for ``Shards``.
        label_steps: How many labels each video has.
        cache_features: Whether features are wanted.
        stills_rate_hz: Frame rate of folders of frames and of arrays, frames per second.

    Attributes:
        splits: The videos of each split.

    Raises:
        ConfigError: As for ``Shards``, or if there are features where videos are wanted, or the
            other way round, or features of stills at another rate.
        DataError: As for ``Shards``, or if videos have another number of labels.
    """

    def __init__(
        self,
        source: str,
        cache: Path,
        cache_gb: float,
        window: int | None,
        label_steps: int,
        *,
        cache_features: bool,
        stills_rate_hz: float,
    ) -> None:
        self._source = source
        self._shards = Shards(
            source, "videos", cache, cache_gb, window, alternative="video features"
        )
        self.splits: Splits = {role: video_entries(self._shards, role) for role in SPLITS}
        for entries in self.splits.values():
            check_label_steps(Path(source), entries, label_steps)
        if self._shards.features is None:
            if cache_features:
                raise ConfigError(
                    f"{source}: holds videos, and --data.cache_features would keep all their "
                    "frames on this machine, which shards are to avoid. Set it to false, or give "
                    "shards of features: seq2seq-prepare writes them from the files, with this set."
                )
            return
        if not cache_features:
            raise ConfigError(
                f"{source}: holds features of videos, which are read with --data.cache_features "
                "true. Set that, and let the model have the network that made them; or give "
                "shards of videos."
            )
        check_stills_rate(source, self._shards.features, stills_rate_hz)

    def shard_numbers(self, *splits: str) -> NDArray[np.int64]:
        """Return the shard of each video of some splits, int64 ``(videos,)``."""
        return self._shards.shard_numbers(*splits)

    def read(self, reader: FrameReader, path: Path, parts: Sequence[VideoPart]) -> None:
        """Decode a video to its end, or read all features of it, to see whether it is sound."""
        if self._shards.features is None:
            read_shard(self._shards, reader, path, parts)
        else:
            self._shards.read_arrays(path)

    def clips(
        self, reader: FrameReader, entries: Sequence[VideoEntry], network: FeatureNetwork | None
    ) -> ClipSource:
        """Return what gives clips of videos, decoding them each time, or features of the clips.

        Args:
            reader: How frames are read.
            entries: The videos.
            network: What features have to be of; None where nobody asks.

        Raises:
            ConfigError: If the features in the shards are not those of the network.
        """
        parts = Mapped(entries, part_of)
        if self._shards.features is None:
            return ClipShards(self._shards, reader, parts)
        if network is not None:
            check_features(self._source, self._shards.features, network)
        return ClipFeatures(self._shards, parts)


def read_to_end(
    videos: VideoFiles | VideoShards,
    reader: FrameReader,
    path: Path,
    parts: Sequence[VideoPart],
) -> CutOff | None:
    """Decode a video to its end, and return where it is cut off; None where it is not.

    Raises:
        DataError: If it cannot be read, or ends before a part begins.
    """
    ends: list[float] = []
    videos.read(replace(reader, on_cut=lambda _, seconds: ends.append(seconds)), path, parts)
    return CutOff(ends[0]) if ends else None
