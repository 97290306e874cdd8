"""Files and folders of a cache, which are complete or not there at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seq2seq.errors import DataError


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
