"""Shards of the tiny corpora, small enough that there are several of each split."""

from pathlib import Path
from typing import Any

from toy_captions import module as caption_module
from toy_clips import SAMPLING, SIZE
from toy_clips import module as video_module

from datamodules import CaptionDataModule, VideoDataModule
from datamodules.shard_store import open_store
from datamodules.shard_writer import Written, write_shards
from seq2seq.pictures import PictureGeometry
from seq2seq.videos import ClipSampling
from seq2seq.videos.frames import FramePreparation

SHARD_BYTES = 4_500
GEOMETRY = PictureGeometry(16, "squash")


def write(data: CaptionDataModule | VideoDataModule, output: Path | str, **options: Any) -> Written:
    """Write the shards of a data module."""
    data.prepare_data()
    data.setup("fit")
    options = {"shard_bytes": SHARD_BYTES, "workers": 2, **options}
    return write_shards(data.shard_source(), open_store(str(output)), **options)


def pictures(root: Path, **options: Any) -> CaptionDataModule:
    """Return captioned pictures from files, ready to be read."""
    return _shown(caption_module(root, **options))


def sharded_pictures(source: Path | str, cache: Path, **options: Any) -> CaptionDataModule:
    """Return captioned pictures from shards, ready to be read."""
    defaults = {"vocabulary": "word", "vocab_size": 15, "batch_size": 4, "eval_batch_size": 2}
    options = {**defaults, "cache_dir": str(cache), **options}
    return _shown(CaptionDataModule(str(source), format="shards", **options))


def videos(
    source: Path | str, sampling: ClipSampling = SAMPLING, **options: Any
) -> VideoDataModule:
    """Return videos, from files or shards, ready to be read."""
    data = video_module(source, **options)
    data.prepare_data()
    data.setup("fit")
    data.show_to(FramePreparation(PictureGeometry(SIZE, "squash"), 1), sampling, None)
    return data


def _shown(data: CaptionDataModule) -> CaptionDataModule:
    data.prepare_data()
    data.setup("fit")
    data.show_to(GEOMETRY, None)
    return data
