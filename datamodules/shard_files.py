"""The files of shards in a folder, and what is said of those that cannot be used."""

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from datamodules.faults import Fault, Faults
from seq2seq.errors import DataError

MISSING = Fault(
    "files that do not exist",
    "Get what is missing, or run seq2seq-prepare again: it keeps the shards that are finished.",
)
OTHER_SIZE = Fault(
    "files of another size than the index says, cut off or replaced",
    "Get them again, or run seq2seq-prepare again, which writes them anew.",
)
_LOCK = ".prepared/lock"  # beside the notes on finished shards


ByteRange = tuple[int, int]
"""Start and size."""


class StoredFile(NamedTuple):
    """A file of a store, as its index knows it.

    Attributes:
        name: Its name below the store.
        size: Bytes.
        digest: Hash of its content, hexadecimal.
    """

    name: str
    size: int
    digest: str


class FolderStore:
    """Files of a folder.

    Args:
        folder: The folder.
    """

    is_remote = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._checked: dict[str, tuple[int, int]] = {}

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None where there is none."""
        try:
            return (self._folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DataError(unreadable(self._folder / name, error)) from error

    def fetch(self, file: StoredFile) -> Path:
        """Return where a file lies."""
        self.check([file])
        return self._folder / file.name

    def read_ranges(self, file: StoredFile, ranges: Sequence[ByteRange]) -> list[bytes]:
        """Return some ranges of the bytes of a file."""
        path = self._folder / file.name
        try:
            found = read_ranges_of(path, ranges)
            version = _version(path.stat())
        except FileNotFoundError as error:
            raise DataError(f"{path}: does not exist any more. {MISSING.remedy}") from error
        except OSError as error:
            raise DataError(unreadable(path, error)) from error
        if self._checked.get(file.name, version) != version:
            raise DataError(
                f"{path}: has been written again since this run began, and its samples may be at "
                "other places now. Start the run again."
            )
        return found

    def check(self, files: Iterable[StoredFile]) -> None:
        """Check that files are there and have their sizes."""
        faults = Faults(self._folder, "the shards cannot be used")
        for file in files:
            status = self._status(file)
            if status is None:
                faults.add(MISSING, file.name)
            elif status.st_size != file.size:
                faults.add(OTHER_SIZE, f"{file.name} ({status.st_size} bytes, not {file.size})")
            else:
                self._checked[file.name] = _version(status)
        faults.raise_all()

    def has(self, file: StoredFile) -> bool:
        """Return whether a file is there, with its size."""
        status = self._status(file)
        return status is not None and status.st_size == file.size

    def _status(self, file: StoredFile) -> os.stat_result | None:
        try:
            return (self._folder / file.name).stat()
        except OSError:
            return None

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Lock the folder, whose unfinished files have names that another process would use."""
        path = self._folder / _LOCK
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.open("w")
        except OSError as error:
            raise DataError(unwritable(str(self._folder), error)) from error
        with lock:  # the system takes the lock back at the end, also from a process that is killed
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(
                    f"{self._folder}: another seq2seq-prepare is writing there. Wait for its end, "
                    "or set --output to another folder."
                ) from error
            except OSError:  # a disk without locks
                pass
            yield

    def scratch(self, name: str) -> Path:
        """Return where to make a file: beside its place, where a rename is one step."""
        path = self._folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(unwritable(str(self._folder), error)) from error
        return path.with_name(f".{path.name}.partial")

    def publish(self, name: str) -> None:
        """Rename the file made at ``scratch(name)``."""
        try:
            self.scratch(name).replace(self._folder / name)
        except OSError as error:
            raise DataError(unwritable(str(self._folder), error)) from error

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(unwritable(str(self._folder), error)) from error


def digest_of(path: Path) -> str:
    """Return a hash of the content of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _version(status: os.stat_result) -> tuple[int, int]:
    """Return what is another one when a file has been replaced or changed."""
    return status.st_ino, status.st_mtime_ns


def unwritable(place: str, error: Exception) -> str:
    """Return the message for a place that cannot be written."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return (
        f"{place}: cannot be written ({reason}). Set --output to a folder or URL that you may "
        "write to and that has room."
    )


def unreadable(place: Path | str, error: Exception) -> str:
    """Return the message for a place that cannot be read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return f"{place}: cannot be read ({reason}). Check the place and your rights to read it."


def read_ranges_of(path: Path, ranges: Sequence[ByteRange]) -> list[bytes]:
    """Return some ranges of the bytes of a file on this machine.

    Raises:
        DataError: If it ends before.
        OSError: If it cannot be read.
    """
    contents = []
    with path.open("rb") as stream:
        for start, size in ranges:
            stream.seek(start)
            contents.append(stream.read(size))
            if len(contents[-1]) != size:
                raise DataError(
                    f"{path}: ends before byte {start + size}, within a sample. {OTHER_SIZE.remedy}"
                )
    return contents
