"""A list of files that could not be read, which all processes of a run share."""

import csv
import fcntl
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seq2seq.errors import DataError, printable

_HEADER = ("path", "error", "count")

_log = logging.getLogger(__name__)


class Quarantine:
    """Notes which videos of a split could not be read, and how often that was found.

    The list is a file, ``path,error,count``, to which loader workers and ranks write in turn. Who
    begins to read a split forgets what was found of it before; what was found of other splits, or
    of another source with the same cache folder, stays. Two runs that read one split at a time
    share its rows: what the later one makes the earlier one forget is found again when it is read
    again.

    Args:
        file: The list; other splits may be in it, too.
        paths: Videos of the split.
        role: Name of the split.
        max_bad_share: Largest share of bad videos that is put up with.
    """

    def __init__(
        self, file: Path, paths: Collection[Path], role: str, max_bad_share: float
    ) -> None:
        self.file = file
        self._paths = {str(path) for path in paths}
        self._role = role
        self._max_bad_share = max_bad_share

    def forget(self) -> None:
        """Forget which videos of the split were bad when it was read before."""
        # What must not be changed must not be added to either, which says so.
        with suppress(OSError):
            if self.file.exists():
                with self._open() as rows:
                    for path in self._paths & rows.keys():
                        del rows[path]

    def note(self, path: Path, problem: str) -> None:
        """Note that a video could not be read.

        Args:
            path: The video.
            problem: What is wrong with it; the path may stand before it.

        Raises:
            DataError: If more than the accepted share of the split is bad, or the list cannot be
                written.
        """
        problem = problem.removeprefix(f"{path}: ")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self._open() as rows:
                count = rows.get(str(path), ("", 0))[1] + 1
                rows[str(path)] = problem, count
        except OSError as error:
            raise DataError(
                f"{self.file}: the list of bad videos cannot be written ({error.strerror}). Set "
                "--data.cache_dir to a folder that you may write to."
            ) from error
        if count == 1:
            _log.warning("%s: left out: %s", printable(str(path)), problem)
        bad = len(self._paths & rows.keys())
        if bad > self._max_bad_share * len(self._paths):
            raise DataError(
                f"{bad} of {len(self._paths)} videos of the {self._role} split cannot be read, "
                f"more than the accepted share of {self._max_bad_share:g}; {self.file} has the "
                f"reasons. The last one was {path}: {problem} Mend them, or raise "
                "--data.max_bad_share."
            )

    @contextmanager
    def _open(self) -> Iterator[dict[str, tuple[str, int]]]:
        """Give all rows, which the caller may change while no other process does."""
        self.file.touch()
        # Names of files are bytes, which need not be text.
        with self.file.open("r+", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # until it is closed
            # A process that was killed may have left half a row.
            rows = {
                row[0]: (row[1], int(row[2]))
                for row in csv.reader(stream)
                if len(row) == len(_HEADER) and row[2].isdecimal()
            }
            yield rows
            # Over what is there, and cut afterwards: no row is lost where a process is killed.
            stream.seek(0)
            lines = ((name, *row) for name, row in rows.items())
            csv.writer(stream).writerows([_HEADER, *lines])
            stream.truncate()
