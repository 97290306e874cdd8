"""Files that a data module generates: written once, and known again by their settings."""

import fcntl
import json
import os
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from datamodules.base import Reading, SequenceDataModule
from seq2seq.errors import DataError

_RECORD = "settings.json"


class GeneratedFiles(SequenceDataModule):
    """Generates the files that another data module reads; stands before that among the bases."""

    @abstractmethod
    def generate(self) -> None:
        """Write the files, unless they are there with these settings.

        Raises:
            DataError: If they cannot be written.
        """

    def prepare_data(self) -> None:
        """Generate the files; then go on as ever.

        Raises:
            DataError: If they cannot be written.
        """
        self.generate()
        super().prepare_data()

    def iter_readings(self) -> Iterator[Reading]:
        """Generate the files, and yield them.

        Raises:
            DataError: If they cannot be written.
        """
        self.generate()
        return super().iter_readings()


def write_once(
    root: Path,
    settings: Mapping[str, int],
    names: Sequence[str],
    write: Callable[[], None],
    *,
    what: str,
) -> None:
    """Let files be written, unless all of them are there and were made with these settings.

    Args:
        root: Folder of the files; made where it does not exist.
        settings: What their content depends on.
        names: Their names below ``root``.
        write: Writes them, with ``replace_file``.
        what: What they are, for a message.

    Raises:
        DataError: If ``root`` cannot be written.
    """
    record = json.dumps(settings).encode()

    def are_there() -> bool:
        return _recorded(root) == record and all((root / name).is_file() for name in names)

    try:
        if are_there():
            return
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root):
            if are_there():  # another run has written them meanwhile
                return
            (root / _RECORD).unlink(missing_ok=True)
            write()
            # Last, so that an interrupted run is not taken for a finished one.
            replace_file(root / _RECORD, record)
    except OSError as error:
        raise DataError(
            f"{root}: the {what} cannot be written ({error.strerror}). "
            "Set --data.root to a folder that you may write to."
        ) from error


def make_folder(root: Path, names: Sequence[str], pattern: str) -> None:
    """Make the folder of some files, without those of an earlier run that had more of them.

    A folder that is given to predict must not hold others.

    Args:
        root: What ``names`` are below.
        names: Names of the files, all in one folder; at least one.
        pattern: What they and older ones match.
    """
    folder = (root / names[0]).parent
    folder.mkdir(exist_ok=True)
    wanted = {root / name for name in names}
    for path in folder.glob(pattern):
        if path not in wanted:
            path.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file at one go: another machine may be reading the one that is there."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as partial:
        partial.write(content)
    Path(partial.name).chmod(0o644)
    Path(partial.name).replace(path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait for other runs on this machine that write there; the folder holds no lock file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a disk without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _recorded(root: Path) -> bytes | None:
    try:
        return (root / _RECORD).read_bytes()
    except FileNotFoundError:
        return None
