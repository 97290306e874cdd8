"""Writes items into tar shards, several at a time; goes on where it was stopped."""

import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datamodules.base import Split
from datamodules.cache import content_key
from datamodules.faults import some_of
from datamodules.shard_files import StoredFile, digest_of, unreadable, unwritable
from datamodules.shard_index import FEATURES, INDEX, LAYOUT, format_index
from datamodules.shard_plan import (
    ItemFile,
    ShardItem,
    ShardPlan,
    ShardSource,
    described,
    padded,
    plan_shards,
)
from datamodules.shard_store import ShardStore
from datamodules.shard_table import format_row
from seq2seq.errors import DataError

# Of each finished shard, what its samples are; and of what it was made, so that it can be kept.
_NOTES = ".prepared"


class Written(NamedTuple):
    """What was written.

    Attributes:
        samples: Number of samples.
        shards: Number of shards.
        kept: How many of them an earlier run had finished.
        left_out: Number of items left out.
    """

    samples: int
    shards: int
    kept: int
    left_out: int


def write_shards(source: ShardSource, store: ShardStore, shard_bytes: int, workers: int) -> Written:
    """Write shards, their tables and their index.

    A shard appears when it is complete, and the index when all of them are; what is in them depends
    on the items, ``shard_bytes`` and the seed alone. Shards that an earlier run finished, of the
    same files, are kept. A bar on the terminal says how far it is.

    Args:
        source: What to write.
        store: Where to.
        shard_bytes: Size of a shard; more only where a single item is larger, or what is made of
            items turns out to be.
        workers: How many shards are written at a time.

    Raises:
        DataError: If items are bad and may not be left out, all named; or if too many are; or if
            something cannot be read or written; or if another process writes there.
    """
    with store.claimed():
        return _write_shards(source, store, shard_bytes, workers)


def _write_shards(
    source: ShardSource, store: ShardStore, shard_bytes: int, workers: int
) -> Written:
    plans = list(plan_shards(source, shard_bytes))
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("writing shards"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    bar = progress.add_task("shards", total=len(source.items))
    writer = _Writer(source, store, lambda count: progress.advance(bar, count))
    notes: list[_Note] = []
    problems: list[str] = []
    # Threads do: videos are decoded, files copied and features made without the interpreter's lock.
    pool = ThreadPoolExecutor(workers)
    try:
        with progress:
            for plan, note in zip(plans, pool.map(writer.write, plans), strict=True):
                notes.append(note)
                for path, problem in note.problems:
                    if plan.split in source.quarantines:
                        source.quarantines[plan.split].note(Path(path), problem)
                    else:
                        problems.append(f"{path}: {problem.removeprefix(f'{path}: ')}")
    finally:
        writer.stop()  # else an error, or Ctrl-C, would wait for whole shards
        pool.shutdown(cancel_futures=True)
    if problems:
        items = FEATURES.get(source.kind, source.kind)
        listed = some_of(problems, "\n  - ")
        raise DataError(
            f"{len(problems)} of {len(source.items)} {items} cannot be used:\n"
            f"  - {listed}\n"
            f"Mend them, or leave them out with --data.on_bad_{items[:-1]} quarantine. The "
            "shards without them are finished, and are kept when this runs again."
        )
    samples = _finish(source, plans, notes, store)
    _tidy(plans, store)
    left_out = sum(len(note.problems) for note in notes)
    return Written(samples, len(plans), sum(note.is_kept for note in notes), left_out)


class _Note(NamedTuple):
    """What is known of a finished shard.

    Attributes:
        key: Hash of what it was made of.
        size: Bytes.
        digest: Hash of its content.
        rows: Place in the split, name, files and values of each sample.
        problems: Path of each item that was left out, and why.
        is_kept: Whether an earlier run has written it.
    """

    key: str
    size: int
    digest: str
    rows: list[tuple[int, str, list[tuple[str, int, int]], dict[str, Any]]]
    problems: list[tuple[str, str]]
    is_kept: bool = False


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(unreadable(path, error)) from error


class _Writer:
    """Writes single shards.

    Args:
        source: What they are of.
        store: Where to.
        advance: Called with a number of items that are done.
    """

    def __init__(
        self, source: ShardSource, store: ShardStore, advance: Callable[[int], object]
    ) -> None:
        self._source = source
        self._store = store
        self._advance = advance
        self._is_stopped = threading.Event()

    def stop(self) -> None:
        """Give up the shards that are being written, each at its next item."""
        self._is_stopped.set()

    def write(self, plan: ShardPlan) -> _Note:
        """Write a shard, unless that has been done.

        Raises:
            CancelledError: After ``stop``.
        """
        key = self._key(plan)
        found = self._find(plan.name, key)
        if found is not None:
            self._advance(len(plan.items))
            return found
        # What is there belongs to an index that this shard does not fit any more.
        self._store.remove(INDEX)
        self._store.remove(_note_name(plan.name))
        try:
            note = self._make(plan, key)
            if note.problems and plan.split not in self._source.quarantines:
                return note
            self._store.publish(plan.name)
        finally:
            self._store.scratch(plan.name).unlink(missing_ok=True)
        _publish(self._store, _note_name(plan.name), json.dumps(note).encode())
        return note

    def _key(self, plan: ShardPlan) -> str:
        parts = [
            (item.name, item.samples, [(name, size, time) for name, _, size, time in files])
            for item, files in plan.items
        ]
        leaves_out = plan.split in self._source.quarantines
        return content_key((), LAYOUT, leaves_out, self._source.settings, parts)

    def _find(self, name: str, key: str) -> _Note | None:
        content = self._store.read(_note_name(name))
        if content is None:
            return None
        try:
            note = _Note(*json.loads(content))._replace(is_kept=True)
            if note.key != key:
                return None
        except (ValueError, TypeError):
            return None
        return note if self._store.has(StoredFile(name, note.size, note.digest)) else None

    def _files(self, plan: ShardPlan) -> Iterator[AbstractContextManager[Sequence[ItemFile]]]:
        """Yield for each item of a shard what gives the files to be stored."""
        if self._source.made is None:
            return (_as_they_are(item, files) for item, files in plan.items)
        return self._source.made.make([item for item, _ in plan.items])

    def _make(self, plan: ShardPlan, key: str) -> _Note:
        path = self._store.scratch(plan.name)
        rows: list[Any] = []
        problems: list[tuple[str, str]] = []
        try:
            with tarfile.open(path, "w") as tar:
                for (item, _), giving in zip(plan.items, self._files(plan), strict=True):
                    if self._is_stopped.is_set():
                        raise CancelledError
                    with ExitStack() as stack:
                        try:
                            files = stack.enter_context(giving)
                        except DataError as error:
                            problems.append((str(item.path), str(error)))
                        else:
                            rows += _add(tar, item, files)
                    self._advance(1)
            return _Note(key, path.stat().st_size, digest_of(path), rows, problems)
        except OSError as error:
            raise DataError(unwritable(str(path), error)) from error


@contextmanager
def _as_they_are(
    item: ShardItem, files: Sequence[tuple[str, Path, int, int]]
) -> Iterator[list[ItemFile]]:
    """Give the files of an item, unless it is bad."""
    item.check()
    yield [
        ItemFile(
            name,
            f".{name}" if name else path.suffix.lower() or ".bin",
            size,
            partial(_open, path),
        )
        for name, path, size, _ in files
    ]


def _add(tar: tarfile.TarFile, item: ShardItem, files: Sequence[ItemFile]) -> Iterator[Any]:
    """Add an item to a shard, and yield the rows of its samples."""
    # In WebDataset's layout, what is before the first full stop makes files one sample.
    key = f"{item.samples[0][0]:09}"
    content = described(item)
    _add_member(tar, f"{key}.json", len(content), io.BytesIO(content))
    stored = []
    for file in files:
        with file.open() as stream:
            start = _add_member(tar, key + file.ending, file.size, stream)
        stored.append((file.name, start, file.size))
    for place, values in item.samples:
        yield place, item.name, stored, values


def _add_member(tar: tarfile.TarFile, name: str, size: int, stream: IO[bytes]) -> int:
    """Add a file to a shard, and return where its content begins there."""
    member = tarfile.TarInfo(name)
    member.size = size
    tar.addfile(member, stream)
    return tar.offset - padded(size)


def _finish(
    source: ShardSource, plans: Sequence[ShardPlan], notes: Sequence[_Note], store: ShardStore
) -> int:
    """Write the table of each split, then the index; return the number of samples."""
    rows: dict[str, list[Any]] = {}
    for number, (plan, note) in enumerate(zip(plans, notes, strict=True)):
        rows.setdefault(plan.split, []).extend((row[0], number, row) for row in note.rows)
    tables = {}
    for split, found in rows.items():
        found.sort(key=lambda row: row[0])
        content = "".join(
            format_row(name, number, files, values) for _, number, (_, name, files, values) in found
        ).encode()
        tables[split] = (_publish(store, _table_name(split), content), len(found))
    shards = [
        StoredFile(plan.name, note.size, note.digest)
        for plan, note in zip(plans, notes, strict=True)
    ]
    _publish(store, INDEX, format_index(source.kind, shards, tables, source.features))
    return sum(map(len, rows.values()))


def _tidy(plans: Sequence[ShardPlan], store: ShardStore) -> None:
    """Remove what an earlier run wrote that had more shards, or more splits."""
    for split in get_args(Split):
        number = sum(plan.split == split for plan in plans)
        if number == 0:
            store.remove(_table_name(split))
        while store.read(_note_name(name := f"{split}-{number:06}.tar")) is not None:
            store.remove(name)
            store.remove(_note_name(name))
            number += 1


def _publish(store: ShardStore, name: str, content: bytes) -> StoredFile:
    path = store.scratch(name)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise DataError(unwritable(str(path), error)) from error
    file = StoredFile(name, len(content), digest_of(path))
    store.publish(name)
    return file


def _table_name(split: str) -> str:
    return f"{split}.jsonl"


def _note_name(shard: str) -> str:
    return f"{_NOTES}/{shard.removesuffix('.tar')}.json"
