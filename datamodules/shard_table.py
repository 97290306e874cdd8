"""Sequences whose items are made when they are asked for, so that none of them fill the memory."""

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from seq2seq.errors import DataError

Item = TypeVar("Item")
Made = TypeVar("Made")

_CHUNK_BYTES = 1 << 16


class LazySequence(Sequence[Item]):
    """A sequence of which each item is made when it is asked for."""

    @abstractmethod
    def _at(self, place: int) -> Item:
        """Return the item at a place from 0 on."""

    @overload
    def __getitem__(self, place: int) -> Item: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Item]: ...

    def __getitem__(self, place: int | slice) -> Item | Sequence[Item]:
        if isinstance(place, slice):
            return [self._at(each) for each in range(*place.indices(len(self)))]
        return self._at(range(len(self))[place])


class Mapped(LazySequence[Made], Generic[Item, Made]):
    """What a function makes of the items of a sequence.

    Args:
        items: The sequence.
        make: The function; workers get a copy of it.
    """

    def __init__(self, items: Sequence[Item], make: Callable[[Item], Made]) -> None:
        self._items = items
        self._make = make

    def __len__(self) -> int:
        return len(self._items)

    def _at(self, place: int) -> Made:
        return self._make(self._items[place])

    def __iter__(self) -> Iterator[Made]:
        return map(self._make, self._items)


class Sample(NamedTuple):
    """What the index says of a sample.

    Attributes:
        path: Split, number and name: ``train/12/beach/dog.jpg``. There is no such file; it is what
            ``Shards`` finds the sample by, and what messages call it.
        split: ``train``, ``val`` or ``test``.
        shard: Number of the shard that holds it.
        files: Name, start and size of each of its files there, bytes. One without a name is the
            sample itself; those with names are in a folder that is the sample.
        values: What else is known of it, by name.
    """

    path: Path
    split: str
    shard: int
    files: list[tuple[str, int, int]]
    values: dict[str, Any]


class SampleTable(LazySequence[Sample]):
    """The samples of a split, in a file with a line of JSON for each; 8 bytes of each in memory.

    The file is not mapped into memory: its pages would count as that of the process.

    Args:
        path: The file.
        split: Name of the split.
        count: How many lines it must have.

    Raises:
        DataError: If it has another number of them.
    """

    def __init__(self, path: Path, split: str, count: int) -> None:
        self._path = path
        self._split = split
        self._ends = _line_ends(path)
        self._last: tuple[int, Sample] | None = None
        if len(self._ends) != count:
            raise DataError(
                f"{path}: has {len(self._ends)} lines, not {count}. Run seq2seq-prepare again."
            )

    def __len__(self) -> int:
        return len(self._ends)

    def _at(self, place: int) -> Sample:
        last = self._last
        # Of an example, one part after the other is asked for.
        if last is not None and last[0] == place:
            return last[1]
        start = int(self._ends[place - 1]) + 1 if place else 0
        with self._path.open("rb") as stream:
            stream.seek(start)
            sample = self._parse(place, stream.read(int(self._ends[place]) - start))
        self._last = place, sample
        return sample

    def __iter__(self) -> Iterator[Sample]:
        with self._path.open("rb") as stream:
            for place, line in enumerate(stream):
                yield self._parse(place, line)

    def _parse(self, place: int, line: bytes) -> Sample:
        row = json.loads(line)
        path = Path(self._split, str(place), row["name"])
        files = [(name, start, size) for name, start, size in row["files"]]
        return Sample(path, self._split, row["shard"], files, row["values"])


def format_row(name: str, shard: int, files: Sequence[Sequence[Any]], values: object) -> str:
    """Return the line of a sample, as ``SampleTable`` reads it."""
    row = {"name": name, "shard": shard, "files": files, "values": values}
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def _line_ends(path: Path) -> NDArray[np.int64]:
    found = [np.empty(0, dtype=np.int64)]
    start = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            found.append(start + np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == ord("\n")))
            start += len(chunk)
    return np.concatenate(found)
