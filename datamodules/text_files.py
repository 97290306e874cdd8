"""Readers of parallel text: line-aligned files, TSV and JSONL, plain or compressed, read lazily."""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from seq2seq.errors import DataError

TextFormat = Literal["auto", "lines", "tsv", "jsonl"]

_BYTE_ORDER_MARK = "\ufeff"
# JSON can spell a surrogate alone, which no UTF-8 can hold.
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_SEPARATORS = (",", ";", "\t")


class Pair(NamedTuple):
    """One example.

    Attributes:
        line: Its line number in the file, from 1.
        source: Source text, without the end of the line.
        target: Target text; None where only the source is read.
    """

    line: int
    source: str
    target: str | None


@dataclass(frozen=True)
class ParallelText:
    """A parallel corpus on disk; iterating reads it from the start, line by line.

    Attributes:
        paths: The source file and the target file, or the one file that holds both.
        source: Source language: the ending of a file, the name of a column or of a key.
        target: Target language; None where only the source is read.
        read: The reader of its format.
    """

    paths: tuple[Path, ...]
    source: str
    target: str | None
    read: "Callable[[ParallelText], Iterator[Pair]]"

    def __iter__(self) -> Iterator[Pair]:
        return self.read(self)


def read_lines(path: Path) -> Iterator[str]:
    r"""Yield the lines of a UTF-8 text file, plain or ``.gz``, without their ends.

    Only ``\n`` and ``\r\n`` end a line: ``str.splitlines`` also cuts at U+2028, U+0085 and others,
    which puts line-aligned files out of step.

    Raises:
        DataError: If the file cannot be read, is empty, or is not UTF-8.
    """
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                line = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
                yield line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{number}: invalid UTF-8 (byte {error.start + 1} of the line). "
            "Convert the file, for example with iconv -t UTF-8."
        ) from error
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{path}: cannot be read after line {number} ({error}). "
            "Give a file that you may read, or get this one again."
        ) from error
    if number == 0:
        raise DataError(f"{path}: the file is empty. Give a file with one example per line.")


def find_separator(path: Path, wanted: Collection[str]) -> str:
    """Return what stands between the columns of a table: a comma, a semicolon or a tab.

    Args:
        path: The table, whose first line names its columns.
        wanted: Columns that are looked for, in any case. What names the most of them is it; if that
            does not decide, what makes the most columns.

    Raises:
        DataError: If the file cannot be read, is empty, or is not UTF-8.
        csv.Error: If its first line is too long for a header.
    """
    line = next(read_lines(path))
    lowered = {name.lower() for name in wanted}

    def fit(separator: str) -> tuple[int, int]:
        header = [name.strip().lower() for name in next(csv.reader([line], delimiter=separator))]
        return len(lowered.intersection(header)), len(header)

    return max(_SEPARATORS, key=fit)


def find_text(
    root: Path, stem: str, source: str, target: str | None, text_format: TextFormat = "auto"
) -> ParallelText:
    """Return the corpus named ``stem`` under ``root``, from what files exist.

    Args:
        root: Folder of the files.
        stem: File name without its ending, such as ``train``.
        source: Source language.
        target: Target language; None to read the source file of line-aligned text alone.
        text_format: ``lines`` for ``stem.source`` beside ``stem.target``, ``tsv``, ``jsonl``, or
            ``auto``. Each file may end in ``.gz``.

    Raises:
        DataError: If no format, or more than one, has its files there.
    """
    names = _file_names(stem, source, target, text_format)
    found = {kind: _existing(root, files) for kind, files in names.items()}
    complete = {kind: paths for kind, paths in found.items() if len(paths) == len(names[kind])}
    if len(complete) == 1:
        ((kind, paths),) = complete.items()
        return ParallelText(paths, source, target, _READERS[kind])
    if complete:
        listed = ", ".join(str(path) for paths in complete.values() for path in paths)
        raise DataError(f"More than one corpus: {listed}. Say which with --data.format.")
    if half := found.get("lines"):
        missing = next(name for name in names["lines"] if not _existing(root, (name,)))
        raise DataError(
            f"{half[0]} has no partner: looked for {root / missing} and {root / missing}.gz."
        )
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root} {what}. Set --data.root to the folder of the text.")
    wanted = "; ".join(" with ".join(f"{name}[.gz]" for name in files) for files in names.values())
    raise DataError(
        f"No {stem!r} text in {root}: looked for {wanted}. "
        "Set --data.root, the names of the splits and the languages to what is there."
    )


def text_exists(
    root: Path, stem: str, source: str, target: str | None, text_format: TextFormat = "auto"
) -> bool:
    """Return whether any file of the corpus named ``stem`` is there, even if its partner is not."""
    names = _file_names(stem, source, target, text_format)
    return any(_existing(root, files) for files in names.values())


def _file_names(
    stem: str, source: str, target: str | None, text_format: TextFormat
) -> dict[str, tuple[str, ...]]:
    if target is None:
        return {"lines": (f"{stem}.{source}",)}
    names: dict[str, tuple[str, ...]] = {
        "lines": (f"{stem}.{source}", f"{stem}.{target}"),
        "tsv": (f"{stem}.tsv",),
        "jsonl": (f"{stem}.jsonl",),
    }
    return names if text_format == "auto" else {text_format: names[text_format]}


def _existing(root: Path, names: tuple[str, ...]) -> tuple[Path, ...]:
    """Return, for each name that has one, its file; the plain one where there are both."""
    choices = ([root / name, root / f"{name}.gz"] for name in names)
    files = (next(filter(Path.exists, choice), None) for choice in choices)
    return tuple(path for path in files if path is not None)


def _read_aligned(text: ParallelText) -> Iterator[Pair]:
    if len(text.paths) == 1:
        for number, line in enumerate(read_lines(text.paths[0]), start=1):
            yield Pair(number, line, None)
        return
    source_path, target_path = text.paths
    sides = zip_longest(read_lines(source_path), read_lines(target_path))
    for number, (source, target) in enumerate(sides, start=1):
        if source is None or target is None:
            longer = number + sum(1 for _ in sides)
            shorter = number - 1
            source_count, target_count = (shorter, longer) if source is None else (longer, shorter)
            raise DataError(
                f"{source_path} has {source_count} lines, {target_path} has {target_count}. "
                "Line n of one must be the translation of line n of the other: "
                "look for a line break that only one of them has."
            )
        yield Pair(number, source, target)


def _read_tsv(text: ParallelText) -> Iterator[Pair]:
    (path,) = text.paths
    columns = (0, 1)
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split("\t")
        if number == 1 and text.source in fields and text.target in fields:
            columns = (fields.index(text.source), fields.index(text.target))
            continue
        if len(fields) <= max(columns):
            raise DataError(
                f"{path}:{number}: {len(fields)} column(s), at least {max(columns) + 1} are "
                "needed. Separate the source and the target by one tab."
            )
        yield Pair(number, fields[columns[0]], fields[columns[1]])


def _read_jsonl(text: ParallelText) -> Iterator[Pair]:
    (path,) = text.paths
    for number, line in enumerate(read_lines(path), start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}:{number}: not JSON ({error}). Put one object on each line."
            ) from error
        fields = record if isinstance(record, dict) else {}
        source, target = fields.get(text.source), fields.get(text.target)
        if not isinstance(source, str) or not isinstance(target, str):
            raise DataError(
                f"{path}:{number}: the line needs an object with a text under each of the keys "
                f"{text.source!r} and {text.target!r}. "
                "Set --data.source and --data.target to the keys of the file."
            )
        if _HALF_CHARACTER.search(source + target):
            raise DataError(
                f"{path}:{number}: half a character (\\ud800 to \\udfff without its other half). "
                "Remove it, or write the character itself."
            )
        # A line break inside a text would come out as two lines of a translation.
        yield Pair(number, source.replace("\n", " "), target.replace("\n", " "))


_READERS: dict[str, Callable[[ParallelText], Iterator[Pair]]] = {
    "lines": _read_aligned,
    "tsv": _read_tsv,
    "jsonl": _read_jsonl,
}
assert {"auto", *_READERS} == set(get_args(TextFormat))
