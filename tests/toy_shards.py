"""Shards of the tiny corpora, small enough that there are several of each split."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import torch
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


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of all that is there, but for the notes on finished shards."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@contextmanager
def in_memory(folder: Path) -> Iterator[str]:
    """Give the URL of a copy of a folder in the memory of this process."""
    files = fsspec.filesystem("memory")
    files.put(str(folder), "/corpus", recursive=True)
    try:
        yield "memory://corpus"
    finally:
        files.rm("/corpus", recursive=True)


def batches(data: CaptionDataModule | VideoDataModule, role: str, epoch: int = 0) -> list[Any]:
    """Return the batches of a split in an epoch."""
    loader = getattr(data, f"{role}_dataloader")()
    loader.set_epoch(epoch)
    return list(loader)


def assert_equal(found: list[Any], expected: list[Any]) -> None:
    """Check that batches are the same, to the last bit."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        *tensors, references = _flat(one)
        *others, other_references = _flat(other)
        assert references == other_references
        assert all(torch.equal(a, b) for a, b in zip(tensors, others, strict=True))


def _flat(batch: Any) -> tuple[Any, ...]:
    frames = batch.inputs if isinstance(batch.inputs, torch.Tensor) else batch.inputs.frames
    return frames, batch.target, batch.indices, batch.references


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
