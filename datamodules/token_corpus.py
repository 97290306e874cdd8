"""Tokenised corpora in memory-mapped arrays: memory does not grow with the corpus."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2seq.errors import DataError


class MappedArray:
    """Variable-length rows in memory-mapped files; pickled as their path, not as their content.

    Args:
        path: Stem of the two files: ``path.data`` has the rows end to end, ``path.offsets`` where
            each begins, and where the last ends.

    Raises:
        ValueError: If the two do not fit together.
    """

    dtype: type[np.generic]

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = _map(path.with_suffix(".data"), self.dtype)
        self._offsets = _map(path.with_suffix(".offsets"), np.int64)
        if not len(self._offsets) or len(self._data) != self._offsets[-1]:
            raise ValueError(f"{path}.data does not fit {path}.offsets")

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of each row, int64 ``(rows,)``."""
        return np.diff(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self._data[self._offsets[row] : self._offsets[row + 1]]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path,)


class TokenArray(MappedArray):
    """Token ids of each line, int32, ending in ``EOS_ID``."""

    dtype = np.int32


class TextArray(MappedArray):
    """UTF-8 bytes of each line, uint8."""

    dtype = np.uint8

    def text(self, row: int) -> str:
        """Return the text of a line."""
        return self[row].tobytes().decode("utf-8")


class TokenisedSide:
    """One language of a tokenised corpus.

    Args:
        folder: Where the corpus is.
        role: ``source`` or ``target``.

    Attributes:
        tokens: Ids of each line.
        text: Text of each line, as it stands in the file.
    """

    def __init__(self, folder: Path, role: str) -> None:
        self.tokens = TokenArray(folder / f"{role}_tokens")
        self.text = TextArray(folder / f"{role}_text")


class TokenisedCorpus:
    """A parallel corpus as ``tokenise`` left it.

    Args:
        folder: Where it is.

    Attributes:
        source: Source side.
        target: Target side; None where only the source was read.
        dropped: How many lines were left out as too long.
        truncated: How many lines were cut off as too long.

    Raises:
        DataError: If files are missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        try:
            counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
            self.dropped: int = counts["dropped"]
            self.truncated: int = counts["truncated"]
            self.source = TokenisedSide(folder, "source")
            self.target = TokenisedSide(folder, "target") if counts["has_target"] else None
            if len({len(part) for part in self._parts()}) > 1:
                raise ValueError("the sides differ in length")
        except (OSError, ValueError) as error:
            raise DataError(
                f"{folder} is damaged ({error}). Delete this folder: it is made anew."
            ) from error

    def _parts(self) -> Iterator[MappedArray]:
        for side in filter(None, (self.source, self.target)):
            yield from (side.tokens, side.text)

    def __len__(self) -> int:
        return len(self.source.tokens)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each example's longer side, int64 ``(examples,)``."""
        if self.target is None:
            return self.source.tokens.lengths
        return np.maximum(self.source.tokens.lengths, self.target.tokens.lengths)


@contextmanager
def row_writer(path: Path) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Give a function that appends one row to the files of a ``MappedArray``."""
    end = 0
    data_path, offsets_path = path.with_suffix(".data"), path.with_suffix(".offsets")
    with data_path.open("wb") as data, offsets_path.open("wb") as offsets:
        offsets.write(np.int64(0).tobytes())

        def write(row: NDArray[Any]) -> None:
            nonlocal end
            end += len(row)
            data.write(row.tobytes())
            offsets.write(np.int64(end).tobytes())

        yield write


def _map(path: Path, dtype: type[np.generic]) -> NDArray[Any]:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")
