"""Finished parts of a prediction, kept beside its output until all of them are there."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import Namespace

from seq2seq.errors import ConfigError, DataError, raise_together
from seq2seq.tasks.base import ItemKind

# Options that change no row: parts that were made with others fit together.
_FREE_OPTIONS = ("ckpt_path", "output", "devices", "resume", "process")
_MANIFEST = "manifest.json"


class Part(NamedTuple):
    """Inputs that follow each other.

    Attributes:
        number: Its place among the parts, from 0.
        first: Number of inputs before it.
        items: The raw inputs; none where there is no input at all.
        is_last: Whether the input ends with it.
    """

    number: int
    first: int
    items: list[str]
    is_last: bool

    def digest(self, kind: ItemKind) -> str:
        """Return what tells these inputs from others: a file is known by its size and time, too."""
        stamps = None if kind == "line" else [_stamp(item) for item in self.items]
        content = json.dumps([self.first, self.items, self.is_last, stamps])
        return hashlib.sha256(content.encode()).hexdigest()


class Finished(NamedTuple):
    """What was made of a part.

    Attributes:
        digest: Of the part.
        is_last: Whether the input ends with it.
        inputs: Number of its inputs.
        unusable: How many rows have an error.
        header: First line of the whole output; None without one.
        rows: Its lines of the output.
        page: Its sections of the page of explanations.
    """

    digest: str
    is_last: bool
    inputs: int
    unusable: int
    header: str | None
    rows: str
    page: str


def cut(items: Iterator[str], size: int, processes: int) -> Iterator[Part]:
    """Yield the input in parts; at least one, which is empty where there is no input.

    Args:
        items: Raw inputs.
        size: Largest number of inputs of a part.
        processes: How many are to have something to do: few inputs make smaller parts.
    """
    head = list(islice(items, size * processes))
    size = max(1, min(size, -(-len(head) // processes)))
    remaining = chain(head, items)
    number = first = 0
    present = list(islice(remaining, size))
    is_last = False
    while not is_last:
        following = list(islice(remaining, size))
        is_last = not following
        yield Part(number, first, present, is_last)
        number, first, present = number + 1, first + len(present), following


class KeptFolder:
    """The folder ``OUTPUT.parts``: what is finished of an output, and what it was made with.

    Args:
        output: The file that it is for.
        option: What a command is given to go on with the folder.
    """

    def __init__(self, output: str, option: str) -> None:
        self.path = Path(f"{output}.parts")
        self._option = option

    def check(self, wanted: dict[str, Any], is_resumed: bool) -> bool:
        """Return whether the folder is there; then it can be gone on with.

        Args:
            wanted: What the command would make rows with: its options, by their names.
            is_resumed: Whether it is to go on with what is there.

        Raises:
            ConfigError: If it is there and not to be gone on with, or was made with other options.
            DataError: If it holds something else.
        """
        if not self.path.exists():
            return False
        if not is_resumed:
            raise ConfigError(
                f"{self.path}: holds parts of a run that has not ended. Add {self._option} to go "
                "on with it, or delete the folder to begin anew."
            )
        self._compare("options", wanted)
        return True

    def make(self, wanted: dict[str, Any], is_resumed: bool, **stored: Any) -> None:
        """Make the folder, or go on with it.

        Args:
            wanted: As for ``check``.
            is_resumed: As for ``check``.
            **stored: What else a new folder is to tell about itself.

        Raises:
            ConfigError: As for ``check``.
            DataError: If it cannot be made, or holds something else.
        """
        if self.check(wanted, is_resumed):
            return
        try:
            self.path.mkdir()
        except OSError as error:
            raise DataError(f"{self.path}: cannot be made: {error.strerror}.") from error
        self._write(_MANIFEST, {**stored, "options": wanted})

    def damage(self, path: Path, remedy: Path) -> DataError:
        """Return the error of a file that does not hold what it should.

        Args:
            path: The file.
            remedy: What to delete.
        """
        return DataError(
            f"{path}: is damaged. Delete {remedy}, and run the same command with {self._option}."
        )

    def _compare(self, kept_as: str, wanted: dict[str, Any]) -> None:
        """Refuse to go on with what was made with something else.

        Args:
            kept_as: What the folder tells about itself under this name is compared.
            wanted: As for ``check``.

        Raises:
            ConfigError: If it was.
            DataError: If the folder holds something else.
        """
        made_with = self._read(_MANIFEST).get(kept_as, {})
        problems = [
            f"--{name} was {made_with.get(name)!r}, and is {wanted.get(name)!r}."
            for name in sorted({*made_with, *wanted})
            if made_with.get(name) != wanted.get(name)
        ]
        if problems:
            problems.append(f"Give what was given before, or delete {self.path} to begin anew.")
        heading = f"{self._option}: {self.path} is of a run with another command:"
        raise_together(problems, ConfigError, heading)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read: {error.strerror}. Run the same command with "
                f"{self._option}; if that does not help, delete {self.path}."
            ) from error
        except ValueError as error:
            raise self.damage(path, self.path if name == _MANIFEST else path) from error
        return content

    def _write(self, name: str, content: dict[str, Any]) -> None:
        # Under its name it is whole; nobody else writes it, but one that a dead run has left.
        partial = self.path / f"{name}.{os.getpid()}"
        try:
            with partial.open("w", encoding="utf-8") as file:
                json.dump(content, file)  # in ASCII, which also holds names that are not UTF-8
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path / name)
        except OSError as error:
            raise DataError(f"{self.path / name}: cannot be written: {error.strerror}.") from error


class PartFolder(KeptFolder):
    """The folder of ``seq2seq-predict``, with a file for each finished part.

    Args:
        output: The file that the parts are for.
    """

    def __init__(self, output: str) -> None:
        super().__init__(output, "--resume")

    def begin(self, options: Namespace) -> None:
        """Make the folder, or go on with it.

        Args:
            options: Those of ``seq2seq-predict``.

        Raises:
            ConfigError: If it is there and not to be gone on with, or was made with another
                checkpoint or other options.
            DataError: If it cannot be made, or holds something else.
        """
        self.make(_describe(options), options.resume, processes=options.devices)

    @property
    def processes(self) -> int:
        """Number of processes that the input was cut for."""
        return int(self._read(_MANIFEST)["processes"])

    def count(self) -> int:
        """Return how many parts are finished."""
        return sum(1 for _ in self.path.glob("[0-9]*.json"))

    def has(self, part: Part, kind: ItemKind) -> bool:
        """Return whether a part is finished.

        Raises:
            DataError: If what is there was made of other inputs, or cannot be read.
        """
        name = _name(part.number)
        if not (self.path / name).exists():
            return False
        if Finished(**self._read(name)).digest != part.digest(kind):
            raise DataError(
                f"{self.path / name}: was made of other inputs than those from {part.first + 1} to "
                f"{part.first + len(part.items)}. Give --input as it was, or delete {self.path} to "
                "begin anew."
            )
        return True

    def write(self, number: int, finished: Finished) -> None:
        """Let a part appear.

        Raises:
            DataError: If it cannot be written.
        """
        self._write(_name(number), finished._asdict())

    def read_all(self) -> Iterator[Finished]:
        """Yield what was made of all parts, in the order of the input.

        Raises:
            DataError: If one is missing, or cannot be read.
        """
        number, is_last = 0, False
        while not is_last:
            finished = Finished(**self._read(_name(number)))
            yield finished
            number, is_last = number + 1, finished.is_last


def _name(number: int) -> str:
    return f"{number:06}.json"


def _describe(options: Namespace) -> dict[str, Any]:
    """Return what rows depend on: the options, and the checkpoint with its size and time."""
    described = {name: value for name, value in vars(options).items() if name not in _FREE_OPTIONS}
    return {**described, "ckpt_path": describe_file(options.ckpt_path)}


def describe_file(path: str | Path) -> str:
    """Return where a file is, its size and when it was changed."""
    size, changed_ns = _stamp(path) or (0, 0)  # who reads it will say what is wrong with it
    time = datetime.fromtimestamp(changed_ns / 1e9, UTC).isoformat()
    return f"{Path(path).resolve()} ({size} bytes, {time})"


def describe_files(paths: Sequence[Path]) -> str:
    """Return what tells files from others: of one what ``describe_file`` says, of more a hash."""
    if len(paths) == 1:
        return describe_file(paths[0])
    content = json.dumps([(str(path), _stamp(path)) for path in paths])
    digest = hashlib.sha256(content.encode()).hexdigest()
    return f"{len(paths)} files (SHA-256 of their paths, sizes and times: {digest})"


def _stamp(path: str | Path) -> tuple[int, int] | None:
    """Return size in bytes and time of change in ns of a file; None where there is none."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return None
    return status.st_size, status.st_mtime_ns
