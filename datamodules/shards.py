"""Pictures, videos, and features of them in tar shards, for data larger than memory and disk.

The shards have the layout of WebDataset, whose tools read them. This project reads them by its own
index of byte offsets: ``webdataset`` streams cannot go on in the middle of an epoch, and deal whole
shards to ranks and workers, so that some get more batches; ``litdata`` goes on only with the same
number of workers and ranks, in a format of its own. With an index, samples have places as files do:
the samplers of files serve, batches are a function of seed, epoch and position, and resume exactly.
"""

import io
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datamodules.shard_files import OTHER_SIZE
from datamodules.shard_index import ShardKind, read_index
from datamodules.shard_store import ShardStore, open_store
from datamodules.shard_table import Sample, SampleTable
from seq2seq.errors import ConfigError, DataError
from seq2seq.pictures import open_picture
from seq2seq.saved_arrays import parse_array

_GIGABYTE = 10**9
_SCRATCH = "seq2seq-"
_HEAD_BYTES = 1 << 10  # more than the header of an array of numbers has


class Shards:
    """Samples that ``seq2seq-prepare`` has written.

    Args:
        source: Folder or URL.
        kind: What they must be.
        cache: Folder to keep what is fetched from a URL.
        cache_gb: Room for shards there, 10^9 bytes.
        window: Out of how many shards batches are mixed; None for all of them.
        alternative: What else they may be.

    Attributes:
        features: What the index says of features; None where they are something else.
        fingerprint: Hash of the index, and so of all content.

    Raises:
        ConfigError: If the shards of a window are larger than the room.
        DataError: If they cannot be read, are incomplete or of another kind.
    """

    def __init__(
        self,
        source: str,
        kind: ShardKind,
        cache: Path,
        cache_gb: float,
        window: int | None,
        alternative: ShardKind | None = None,
    ) -> None:
        self._source = source
        self._store: ShardStore = open_store(source, cache / "shards", int(cache_gb * _GIGABYTE))
        index = read_index(source, self._store)
        if index.kind not in (kind, alternative):
            raise DataError(
                f"{source}: holds {index.kind}, where {kind} are needed. Give shards of those."
            )
        self.features = index.features
        self.fingerprint = index.fingerprint
        self._shards = index.shards
        self._check_room(cache_gb, window)
        self._store.check(index.shards)
        self._tables = {
            split: SampleTable(self._store.fetch(file), split, count)
            for split, (file, count) in index.tables.items()
        }

    def samples(self, split: str) -> SampleTable | tuple[()]:
        """Return the samples of a split; none where there is no such split."""
        return self._tables.get(split, ())

    def shard_numbers(self, *splits: str) -> NDArray[np.int64]:
        """Return the shard of each sample of some splits, int64 ``(samples,)``."""
        return np.fromiter(
            (sample.shard for split in splits for sample in self.samples(split)), dtype=np.int64
        )

    def open_picture(self, path: Path) -> Image.Image:
        """Read a picture, as ``seq2seq.pictures.open_picture`` does.

        Args:
            path: That of its ``Sample``.

        Raises:
            DataError: If it cannot be read.
        """
        sample = self._find(path)
        [(_, *place)] = sample.files
        content = self._read(sample, *place)
        # Of a path, open_picture wants its content, its size and its name, and no more.
        return open_picture(cast(Path, _Member(self._name(sample), content)))

    def read_array(self, path: Path, name: str) -> NDArray[Any]:
        """Read an array of a sample.

        Args:
            path: That of its ``Sample``.
            name: Which of its files.

        Raises:
            DataError: If it cannot be read.
        """
        sample = self._find(path)
        content = self._read(sample, *_place_of(sample, name))
        with self._parsing(sample):
            array: NDArray[Any] = parse_array(
                lambda: np.load(io.BytesIO(content), allow_pickle=False)
            )
        return array

    def read_rows(self, path: Path, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read some rows of an array of a sample, and nothing of the others.

        Args:
            path: That of its ``Sample``.
            name: Which of its files.
            rows: Their places, int64 ``(rows,)``, in any order, and as often as they are wanted.

        Raises:
            DataError: If it cannot be read.
        """
        sample = self._find(path)
        start, size = _place_of(sample, name)
        head = self._read(sample, start, min(size, _HEAD_BYTES))
        with self._parsing(sample):
            shape, dtype, header_bytes = parse_array(lambda: _read_header(head))
            row_bytes = dtype.itemsize * math.prod(shape[1:])
            if header_bytes + shape[0] * row_bytes != size:
                raise ValueError(f"its header tells of {shape[0]} rows")
        start += header_bytes
        wanted, places = np.unique(rows, return_inverse=True)
        ranges = [(start + int(row) * row_bytes, row_bytes) for row in wanted]
        contents = self._store.read_ranges(self._shards[sample.shard], ranges)
        array: NDArray[Any] = np.frombuffer(b"".join(contents), dtype=dtype)
        return array.reshape(len(wanted), *shape[1:])[places]

    def read_arrays(self, path: Path) -> list[NDArray[Any]]:
        """Read all arrays of a sample, as ``read_array`` does."""
        return [self.read_array(path, name) for name, _, _ in self._find(path).files]

    @contextmanager
    def extracted(self, path: Path) -> Iterator[Path]:
        """Give a sample as a file or folder on this machine, for as long as it is needed.

        Args:
            path: That of its ``Sample``, by which errors name it, too.

        Raises:
            DataError: If it cannot be read.
        """
        sample = self._find(path)
        with self._written(sample) as place:
            try:
                yield place
            except DataError as error:
                raise DataError(str(error).replace(str(place), self._name(sample))) from error

    @contextmanager
    def _written(self, sample: Sample) -> Iterator[Path]:
        if not sample.files[0][0]:
            [(_, *only)] = sample.files
            # The ending tells arrays from videos.
            with tempfile.NamedTemporaryFile(prefix=_SCRATCH, suffix=sample.path.suffix) as file:
                file.write(self._read(sample, *only))
                file.flush()
                yield Path(file.name)
            return
        with tempfile.TemporaryDirectory(prefix=_SCRATCH) as folder:
            for name, *place in sample.files:
                Path(folder, name).write_bytes(self._read(sample, *place))
            yield Path(folder)

    def _read(self, sample: Sample, start: int, size: int) -> bytes:
        [content] = self._store.read_ranges(self._shards[sample.shard], [(start, size)])
        return content

    @contextmanager
    def _parsing(self, sample: Sample) -> Iterator[None]:
        """Raise a ``DataError`` where what is parsed is no array."""
        try:
            yield
        except Exception as error:  # NumPy raises what its parts happen to raise
            raise DataError(
                f"{self._name(sample)}: its array is damaged ({error}). {OTHER_SIZE.remedy}"
            ) from error

    def _find(self, path: Path) -> Sample:
        split, number, *_ = path.parts
        return self._tables[split][int(number)]

    def _name(self, sample: Sample) -> str:
        name = PurePath(*sample.path.parts[2:])
        return f"{self._source}/{self._shards[sample.shard].name}: {name}"

    def _check_room(self, cache_gb: float, window: int | None) -> None:
        """Check that what is read at a time can be kept, as far as it has to be fetched."""
        if not self._store.is_remote:
            return
        sizes = sorted((shard.size for shard in self._shards), reverse=True)
        # While a window slides on to the next shard, it has parts of one more.
        needed = sum(sizes if window is None else sizes[: window + 1]) / _GIGABYTE
        if needed > cache_gb:
            remedy = "or set --data.shard_window to 1 or more" if window is None else "or lower it"
            raise ConfigError(
                f"--data.shard_cache_gb={cache_gb:g} is too small: batches are mixed out of "
                f"{needed:.3g} GB of shards (--data.shard_window={window}), which would be fetched "
                f"again and again. Raise it, {remedy}."
            )


def shard_problems(is_sharded: bool, window: int | None, cache_gb: float) -> Iterator[str]:
    """Yield what is wrong with the options of shards, one sentence each.

    Args:
        is_sharded: Whether the data is in shards.
        window: As for ``Shards``.
        cache_gb: As for ``Shards``.
    """
    if window is not None and not is_sharded:
        yield "--data.shard_window is for --data.format shards: set that, or leave it null."
    if window is not None and window < 1:
        yield f"--data.shard_window is {window}: set it to 1 or more, or null."
    if not 0 <= cache_gb < float("inf"):
        yield f"--data.shard_cache_gb is {cache_gb}: set it to 0 or more."


def _read_header(content: bytes) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape and type of a saved array, and how many bytes say so."""
    stream = io.BytesIO(content)
    np.lib.format.read_magic(stream)
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    return shape, dtype, stream.tell()


def _place_of(sample: Sample, name: str) -> tuple[int, int]:
    """Return start and size of a file of a sample."""
    [(start, size)] = [place for found, *place in sample.files if found == name]
    return start, size


class _Member:
    """A file in a shard, of which a path is needed."""

    def __init__(self, name: str, content: bytes) -> None:
        self._name = name
        self._content = content

    def __str__(self) -> str:
        return self._name

    def open(self, mode: Literal["rb"]) -> io.BytesIO:
        """Return a stream of its content."""
        assert mode == "rb"
        return io.BytesIO(self._content)

    def stat(self) -> os.stat_result:
        """Return its size, and nothing else."""
        return os.stat_result((0, 0, 0, 0, 0, 0, len(self._content), 0, 0, 0))
