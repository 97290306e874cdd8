"""What goes into which shard."""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np

from datamodules.quarantine import Quarantine
from datamodules.shard_files import unreadable
from datamodules.shard_index import ShardKind
from seq2seq.errors import ConfigError, DataError
from seq2seq.videos.find import find_frames

BLOCK = 512
"""Bytes that each part of a tar file is a multiple of."""


class ShardItem(NamedTuple):
    """A picture or a video, which is stored once.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        path: A file, or a folder of frames.
        name: What it is called, the same wherever the data lies.
        samples: Place in the split of each sample of it, and what is known of that.
        check: Reads it where its files are stored as they are; raises a ``DataError`` if it is bad.
    """

    split: str
    path: Path
    name: str
    samples: tuple[tuple[int, dict[str, Any]], ...]
    check: Callable[[], object]


class ItemFile(NamedTuple):
    """A file of an item, as a shard takes it.

    Attributes:
        name: By which it is found in the shard again; empty where it is all there is of the item.
        ending: What it is called in the tar file, behind the number of the item.
        size: Bytes.
        open: Opens it.
    """

    name: str
    ending: str
    size: int
    open: Callable[[], IO[bytes]]


def made_file(name: str, content: bytes) -> ItemFile:
    """Return a file that has been made."""
    return ItemFile(name, f".{name}", len(content), partial(io.BytesIO, content))


class MadeFiles(Protocol):
    """What is stored in place of the files of items, and made of them."""

    def sizes(self, item: ShardItem) -> list[int]:
        """Return the bytes of each file of an item, as far as they are known beforehand."""
        ...

    def make(
        self, items: Sequence[ShardItem]
    ) -> Iterator[AbstractContextManager[Sequence[ItemFile]]]:
        """Yield for each item of a shard what gives its files, for as long as they are needed.

        Several threads do so at once, each with a shard of its own.

        Raises:
            DataError: If an item that has been checked cannot be read. One that has not, and is
                bad, raises it where its files are asked for.
        """
        ...


class ShardSource(NamedTuple):
    """What a data module gives to be written.

    Attributes:
        kind: What the items are.
        items: All of them; those of a split in its order.
        seed: Of the order of the training items in the shards.
        quarantines: Of each split, what notes bad items, which are left out; without any, they are
            an error.
        settings: What ``check``, or what is made, depends on, beside the files.
        made: What is stored in place of the files; None to store these.
        features: What the index is to say of features.
    """

    kind: ShardKind
    items: list[ShardItem]
    seed: int
    quarantines: Mapping[str, Quarantine]
    settings: object
    made: MadeFiles | None = None
    features: dict[str, Any] | None = None


def refuse_shards(source: str, is_sharded: bool) -> None:
    """Check that data is not in shards already.

    Raises:
        ConfigError: If it is.
    """
    if is_sharded:
        raise ConfigError(f"{source} has shards already. Give a recipe that reads files.")


class ShardPlan(NamedTuple):
    """What goes into a shard: its items, each with its files as name, path, size and time."""

    name: str
    split: str
    items: list[tuple[ShardItem, list[tuple[str, Path, int, int]]]]


def plan_shards(source: ShardSource, shard_bytes: int) -> Iterator[ShardPlan]:
    """Divide the items of each split among shards."""
    splits: dict[str, list[ShardItem]] = {}
    for item in source.items:
        splits.setdefault(item.split, []).append(item)
    for split, items in splits.items():
        if split == "train":
            # Sources go class by class, and a shard is to be a sample of all of them.
            order = np.random.default_rng(source.seed).permutation(len(items))
            items = [items[place] for place in order]
        packed: list[Any] = []
        size, number = 0, 0
        for item in items:
            files = list(_files_of(item))
            sizes = [file_size for _, _, file_size, _ in files]
            if source.made is not None:
                sizes = source.made.sizes(item)
            sizes.append(len(described(item)))
            needed = sum(BLOCK + padded(each) for each in sizes)  # each behind a header
            if packed and size + needed > shard_bytes:
                yield ShardPlan(f"{split}-{number:06}.tar", split, packed)
                packed, size, number = [], 0, number + 1
            packed.append((item, files))
            size += needed
        yield ShardPlan(f"{split}-{number:06}.tar", split, packed)


def _files_of(item: ShardItem) -> Iterator[tuple[str, Path, int, int]]:
    """Yield the files of an item; with names, where it is a folder of them."""
    try:
        is_folder = item.path.is_dir()
        for path in find_frames(item.path) if is_folder else [item.path]:
            status = path.stat()
            yield path.name if is_folder else "", path, status.st_size, status.st_mtime_ns
    except OSError as error:
        raise DataError(unreadable(item.path, error)) from error


def described(item: ShardItem) -> bytes:
    """Return what is known of an item, for other programs."""
    known = {"name": item.name, "samples": [values for _, values in item.samples]}
    return json.dumps(known, ensure_ascii=False).encode()


def padded(size: int) -> int:
    """Return the room that so many bytes take in a tar file."""
    return -(-size // BLOCK) * BLOCK
