"""Where shards lie: a folder, or a place behind a URL."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

from datamodules.shard_files import ByteRange, FolderStore, StoredFile
from datamodules.shard_urls import UrlStore
from seq2seq.errors import DataError


class ShardStore(Protocol):
    """Files that are written once, and read by processes that know their sizes.

    Attributes:
        is_remote: Whether they have to be fetched.
    """

    is_remote: bool

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None where there is none.

        Raises:
            DataError: If it cannot be read.
        """
        ...

    def fetch(self, file: StoredFile) -> Path:
        """Return where on this machine a file lies.

        Raises:
            DataError: If it is missing, cannot be read, or has another size.
        """
        ...

    def read_ranges(self, file: StoredFile, ranges: Sequence[ByteRange]) -> list[bytes]:
        """Return some ranges of the bytes of a file.

        Raises:
            DataError: As ``fetch``, or if the file ends before.
        """
        ...

    def check(self, files: Iterable[StoredFile]) -> None:
        """Check that files are complete, as far as that can be told without fetching them.

        Raises:
            DataError: If some are missing or have other sizes; it names them.
        """
        ...

    def has(self, file: StoredFile) -> bool:
        """Return whether a file is there, with its size."""
        ...

    def claimed(self) -> AbstractContextManager[None]:
        """Keep other processes from writing there at the same time, where that is possible.

        Raises:
            DataError: If another one does, or nothing can be written.
        """
        ...

    def scratch(self, name: str) -> Path:
        """Return where to make a file that is to be published; for any thread, while claimed."""
        ...

    def publish(self, name: str) -> None:
        """Let the file made at ``scratch(name)`` appear under its name, all at once.

        Raises:
            DataError: If it cannot be written.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if there is one.

        Raises:
            DataError: If it cannot be removed.
        """
        ...


def open_store(source: str, cache: Path | None = None, cache_bytes: int = 0) -> ShardStore:
    """Return the store at a path or URL.

    Args:
        source: A folder, or what ``fsspec`` takes: ``s3://bucket/folder``.
        cache: Where to keep what is fetched from a URL; None where nothing is.
        cache_bytes: Room for the shards there.

    Raises:
        DataError: If nothing can handle the URL.
    """
    if "://" not in source:
        return FolderStore(Path(source))
    try:
        filesystem, root = fsspec.core.url_to_fs(source)
    except (ImportError, ValueError) as error:
        raise DataError(
            f"{source}: {error}. Give a folder, or a URL of a kind that fsspec knows; most need "
            "a package of their own (s3fs for s3://, gcsfs for gs://)."
        ) from error
    if isinstance(filesystem, LocalFileSystem):
        return FolderStore(Path(root))
    return UrlStore(source, cache, cache_bytes)
