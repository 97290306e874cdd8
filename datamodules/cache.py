"""The cache on disk: where it is, what its parts are called, and how they appear complete."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from seq2seq.errors import DataError

# Part of every key: raise it when a file of the cache changes its layout.
_LAYOUT = 1


def cache_folder(root: Path, cache_dir: str | None) -> Path:
    """Return ``cache_dir``, or the default one: beside the data, or else the user's own."""
    if cache_dir is not None:
        return Path(cache_dir)
    beside = root / ".seq2seq_cache"
    if os.access(beside if beside.is_dir() else root, os.W_OK):
        return beside
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(user) / "seq2seq"


def content_key(paths: Iterable[Path], *options: object) -> str:
    """Return a hash of the contents of files and of options, hexadecimal.

    Contents, not names, sizes and times: a file that was copied keeps its cache, and one that was
    edited within a tick of the clock loses it.

    Raises:
        DataError: If a file cannot be read.
    """
    digest = hashlib.blake2b(repr((_LAYOUT, options)).encode(), digest_size=16)
    for path in paths:
        try:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "blake2b").digest())
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}). Give a file that you may read."
            ) from error
    return digest.hexdigest()


def require_prepared(path: Path) -> None:
    """Check that a file or folder of the cache is there.

    Raises:
        DataError: If it is not.
    """
    if not path.exists():
        raise DataError(
            f"{path} is missing: prepare_data has not run, or the data changed since. "
            "With several machines, set --data.cache_dir to a folder that all of them share."
        )


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Give a path to make a file or a folder at; it takes the name ``path`` at the end.

    Under that name it is complete or not there at all, whatever goes wrong in between. Several
    processes may do this at once: the first one counts, as the same key means the same content.

    Raises:
        DataError: If nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".partial-", dir=path.parent))
        try:
            yield scratch / path.name
            _rename(scratch / path.name, path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{path.parent}: the cache cannot be written ({error.strerror}). "
            "Set --data.cache_dir to a folder that you may write to and that has room."
        ) from error


def _rename(made: Path, path: Path) -> None:
    try:
        os.rename(made, path)  # noqa: PTH104  # as one step, or not at all
    except OSError:
        if not path.exists():  # else another process was quicker
            raise
