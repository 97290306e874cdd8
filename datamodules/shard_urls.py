"""The files of shards behind a URL, of which a part is kept on this machine."""

import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

from datamodules.shard_files import (
    MISSING,
    OTHER_SIZE,
    ByteRange,
    StoredFile,
    digest_of,
    read_ranges_of,
    unreadable,
    unwritable,
)
from seq2seq.errors import DataError

_TRIES = 3


class UrlStore:
    """Files behind a URL; shards are fetched whole, and those used last are kept.

    All processes of a machine share what is kept, by content: so each shard is fetched once for all
    of them, and never mistaken for an older one of its name.

    Args:
        url: Where they are.
        cache: Folder of what is kept; None where nothing is fetched.
        cache_bytes: How much of the shards is kept there. Tables are kept in any case.
    """

    is_remote = True

    def __init__(self, url: str, cache: Path | None, cache_bytes: int) -> None:
        self._url = url.rstrip("/")
        self._cache = cache
        self._cache_bytes = cache_bytes
        self._scratch: Path | None = None

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None where there is none."""
        filesystem, path = self._at(name)
        try:
            content: bytes = filesystem.cat_file(path)
        except FileNotFoundError:
            return None
        except Exception as error:  # each kind of URL has errors of its own
            raise DataError(unreadable(f"{self._url}/{name}", error)) from error
        return content

    def fetch(self, file: StoredFile) -> Path:
        """Return where a file lies on this machine, after fetching it if need be."""
        assert self._cache is not None
        path = self._cache / f"{file.digest}{Path(file.name).suffix}"
        if path.is_file():
            return path
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            with (self._cache / f".{path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
                if not path.is_file():
                    self._make_room(file.size)
                    self._download(file, path)
                    self._make_room(0)  # other processes may have fetched some meanwhile
        except OSError as error:
            raise DataError(
                f"{self._cache}: shards cannot be kept there ({error.strerror or error}). Set "
                "--data.cache_dir to a folder that has room, or lower --data.shard_cache_gb."
            ) from error
        return path

    def read_ranges(self, file: StoredFile, ranges: Sequence[ByteRange]) -> list[bytes]:
        """Return some ranges of the bytes of a file."""
        for _ in range(_TRIES):
            path = self.fetch(file)
            try:
                os.utime(path)  # those used last are kept
                return read_ranges_of(path, ranges)
            except FileNotFoundError:  # another process needed its room in this moment
                continue
        raise DataError(
            f"{self._cache}: has no room for all the shards that are read at a time. Raise "
            "--data.shard_cache_gb, or lower --data.shard_window."
        )

    def check(self, files: Iterable[StoredFile]) -> None:
        """Check nothing: each file is checked when it is fetched."""

    def has(self, file: StoredFile) -> bool:
        """Return whether a file is there, with its size."""
        filesystem, path = self._at(file.name)
        try:
            return bool(filesystem.info(path)["size"] == file.size)
        except FileNotFoundError:
            return False
        except Exception as error:
            raise DataError(unreadable(f"{self._url}/{file.name}", error)) from error

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Have a folder to make files in; object stores have no locks, and uploads do not mix."""
        try:
            # Made before any thread asks for it: several write shards at a time.
            folder = tempfile.TemporaryDirectory(prefix="seq2seq-", ignore_cleanup_errors=True)
        except OSError as error:
            raise DataError(
                f"There is no folder for unfinished shards ({error.strerror or error}). Set TMPDIR "
                "to a folder that you may write to and that has room."
            ) from error
        with folder:
            self._scratch = Path(folder.name)
            yield

    def scratch(self, name: str) -> Path:
        """Return where to make a file, while this is claimed."""
        assert self._scratch is not None
        return self._scratch / Path(name).name

    def publish(self, name: str) -> None:
        """Upload the file made at ``scratch(name)``; object stores show it when it is complete."""
        made = self.scratch(name)
        filesystem, path = self._at(name)
        try:
            filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
            filesystem.put_file(str(made), path)
        except Exception as error:
            raise DataError(unwritable(f"{self._url}/{name}", error)) from error

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        filesystem, path = self._at(name)
        try:
            filesystem.rm_file(path)
        except FileNotFoundError:
            pass
        except Exception as error:
            raise DataError(unwritable(f"{self._url}/{name}", error)) from error

    def _at(self, name: str) -> tuple[Any, str]:
        # Asked for anew each time: connections do not outlive a fork, and fsspec keeps its own.
        filesystem, root = fsspec.core.url_to_fs(self._url)
        return filesystem, f"{root}/{name}"

    def _download(self, file: StoredFile, path: Path) -> None:
        where = f"{self._url}/{file.name}"
        partial = path.with_name(f".{path.name}.partial")
        filesystem, remote = self._at(file.name)
        try:
            try:
                filesystem.get_file(remote, str(partial))
            except FileNotFoundError as error:
                raise DataError(f"{where}: {MISSING.what}. {MISSING.remedy}") from error
            except Exception as error:
                raise DataError(unreadable(where, error)) from error
            size = partial.stat().st_size
            if size != file.size:
                raise DataError(f"{where}: has {size} bytes, not {file.size}. {OTHER_SIZE.remedy}")
            if digest_of(partial) != file.digest:
                raise DataError(f"{where}: has another content. {OTHER_SIZE.remedy}")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Remove the shards that were used longest ago, as many as it takes."""
        assert self._cache is not None
        kept = []
        for path in self._cache.glob("*.tar"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process makes room, too
                continue
            kept.append((status.st_mtime_ns, status.st_size, path))
        excess = sum(kept_size for _, kept_size, _ in kept) + size - self._cache_bytes
        for _, kept_size, path in sorted(kept):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= kept_size
