"""Finished rows of ``seq2seq predict``, kept beside its output until all of them are there."""

import heapq
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from jsonargparse import Namespace
from numpy.typing import NDArray

from seq2seq.errors import DataError
from seq2seq.prediction_parts import KeptFolder, describe_file, describe_files

RESUME = "--predictions.resume true"
"""What ``seq2seq predict`` is given to go on."""

# What rows depend on, but for options of the data that change none: after a run that was out of
# memory, another may go on with smaller batches.
_ROW_OPTIONS = ("model.", "data.", "trainer.precision")
_FREE_OPTIONS = ("data.batch_size", "data.eval_batch_size", "data.num_workers")
# A process may often have no more than 256 files open; every run leaves one for each process.
_FILES_AT_ONCE = 64


class Row(NamedTuple):
    """A finished prediction.

    Attributes:
        place: In the input, from 0.
        text: The best prediction.
    """

    place: int
    text: str


class RowFolder(KeptFolder):
    """The folder of ``seq2seq predict``, with a file of rows for each process of each run.

    Args:
        output: The file that the rows are for.
    """

    def __init__(self, output: Path) -> None:
        super().__init__(str(output), RESUME)
        self._output = output

    def begin(
        self, options: dict[str, Any], inputs: Sequence[Path], is_resumed: bool
    ) -> NDArray[np.int64]:
        """Make the folder, or go on with it.

        Args:
            options: What rows are made with, by the names of the options.
            inputs: The files that are read.
            is_resumed: Whether to go on with what is there.

        Returns:
            The places that are finished, ascending, int64 ``(rows,)``.

        Raises:
            ConfigError: If the folder is there and not to be gone on with, or was made with other
                options or inputs.
            DataError: If it cannot be made, or is damaged.
        """
        parent = self.path.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{parent}: cannot be made: {error.strerror}.") from error
        described = {"data.predict": describe_files(inputs)} if inputs else {}
        self.make(options, is_resumed, inputs=described)
        self._compare("inputs", described)
        places = (row.place for path in self._files() for row in self._read_rows(path))
        return np.unique(np.fromiter(places, dtype=np.int64))

    def add(self, rank: int) -> IO[str]:
        """Return a new file for the rows of a process.

        Raises:
            DataError: If it cannot be made.
        """
        try:
            # What a killed process has left may end in the middle of a row: nothing is added to it.
            return self._new_path(f"rank{rank}").open("x", encoding="utf-8")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written to: {error.strerror}.") from error

    def has_rows(self) -> bool:
        """Return whether anything is finished."""
        return any(path.stat().st_size for path in self._files())

    def finish(self, inputs: int) -> None:
        """Put the rows together to the whole output, and delete the folder.

        Args:
            inputs: How many there are.

        Raises:
            DataError: If there is not one row for each, a file is damaged, or the output cannot be
                written.
        """
        whole = self.path / "whole"
        found = 0
        try:
            self._merge_files()
            with whole.open("w", encoding="utf-8") as file:
                for row in self._read_all(self._files()):
                    if row.place != found:
                        break
                    file.write(f"{row.text}\n")
                    found += 1
                file.flush()
                os.fsync(file.fileno())
            if found != inputs:
                raise DataError(
                    f"{self.path}: has the predictions of the first {found} inputs, and there are "
                    f"{inputs}. Set --predictions.path to a folder that all processes share, "
                    f"delete {self.path}, and begin anew."
                )
            whole.replace(self._output)
        except OSError as error:
            raise DataError(
                f"{self._output}: cannot be put together: {error.strerror}. Run the same command "
                f"with {RESUME} when it can."
            ) from error
        shutil.rmtree(self.path)

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("*.jsonl"))

    def _new_path(self, name: str) -> Path:
        return self.path / f"{name}-{uuid.uuid4().hex}.jsonl"

    def _merge_files(self) -> None:
        """Make fewer files of them, until all that are left can be open at the same time."""
        while len(files := self._files()) > _FILES_AT_ONCE:
            group = files[:_FILES_AT_ONCE]
            partial = self.path / "together"
            with partial.open("w", encoding="utf-8") as file:
                for row in self._read_all(group):
                    write_row(file, row)
            partial.replace(self._new_path("together"))  # the last in order: merged last
            for path in group:
                path.unlink()

    def _read_all(self, files: Sequence[Path]) -> Iterator[Row]:
        """Yield the rows of files, each once, in the order of the input."""
        last = None
        # Every process works in the order of the input.
        for row in heapq.merge(*map(self._read_rows, files)):
            # One that has outlived its run may have written what was decoded again after that.
            if row.place != last:
                yield row
            last = row.place

    def _read_rows(self, path: Path) -> Iterator[Row]:
        try:
            with path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        return  # killed while it was written
                    try:
                        yield Row(**json.loads(line))
                    except (TypeError, ValueError) as error:
                        raise self.damage(path, path) from error
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read: {error.strerror}. Run the same command with {RESUME} "
                "when it can."
            ) from error


def write_row(file: IO[str], row: Row) -> None:
    """Add a row to a file.

    Raises:
        OSError: If it cannot be written.
    """
    file.write(f"{json.dumps(row._asdict())}\n")  # in ASCII


def describe_options(config: Namespace, checkpoint: str) -> dict[str, Any]:
    """Return what predictions depend on, by the names that a command line has for it.

    Args:
        config: That of ``seq2seq predict``.
        checkpoint: The file of the model.
    """
    options = {
        name.replace(".init_args", "").removesuffix(".class_path"): value
        for name, value in vars(config.as_flat()).items()
        if name.startswith(_ROW_OPTIONS)
    }
    described = {name: value for name, value in options.items() if name not in _FREE_OPTIONS}
    for name, value in described.items():
        if isinstance(value, str) and _is_file(value):
            described[name] = describe_file(value)  # it may change between two runs
    described["ckpt_path"] = describe_file(checkpoint)
    stored: dict[str, Any] = json.loads(json.dumps(described, default=str))
    return stored


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero byte
        return False
