"""The cache on disk: where it is, and what its parts are called."""

import hashlib
import os
from collections.abc import Iterable
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
