"""The formats of labelled texts: each reader yields what a file says, and notes what is wrong."""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from datamodules.faults import Fault, Faults, some_of
from datamodules.review_arrays import read_arrays
from datamodules.text_files import find_separator, read_lines
from seq2seq.errors import DataError

TEXT_SUFFIXES = (".txt", ".txt.gz")

_MALFORMED = Fault("entries that cannot be read", "Mend them.")
_NO_FIELD = Fault(
    "objects without a text or without a label",
    "Set --data.text_column and --data.label_column to the keys of the file, or mend the lines.",
)
_NO_LABEL = Fault("reviews without a label", "Give them one, or remove them.")
_OTHER_LABEL = Fault(
    "labels that --data.labels does not name", "Name them there, or remove these reviews."
)
_OTHER_SPLIT = Fault(
    "reviews of another split, or of none",
    "Name a split for each; --data.train, --data.val and --data.test say what they are called.",
)
_HALF = Fault("texts with half a character (\\ud800 to \\udfff)", "Mend or remove them.")


class Review(NamedTuple):
    """A text and what it is.

    Attributes:
        text: On one line, however many it has in the source.
        labels: One or more, in order; none where only the text is read.
        split: ``train``, ``val`` or ``test``; None where the source names none.
        place: Where it stands, such as ``reviews.csv:12``, or its path below the folder.
    """

    text: str
    labels: tuple[str, ...]
    split: str | None
    place: str


@dataclass(frozen=True)
class Layout:
    """How reviews stand in a file.

    Attributes:
        text_column: Column or key of the text.
        label_column: Column or key of the label; None to read the text alone.
        split_column: Column or key of the split; None for ``split`` where there is one.
        label_separator: What is between the labels of a review with several; empty for nothing.
        label_names: What labels are called, by what they are in the source; empty to leave them.
        split_names: What ``train``, ``val`` and ``test`` are called in the source.
    """

    text_column: str
    label_column: str | None
    split_column: str | None
    label_separator: str
    label_names: Mapping[str, str]
    split_names: Mapping[str, str]


class ReviewFile(NamedTuple):
    """A file with reviews, and what its name says of them.

    Attributes:
        path: The file.
        kind: Its format.
        split: ``train``, ``val`` or ``test``; None where its name does not say.
        label: The name of its class folder, where it lies in one.
        place: What to call it, such as its path below the folder.
    """

    path: Path
    kind: str
    split: str | None
    label: str | None
    place: str


Reader = Callable[[ReviewFile, Layout, Faults], Iterator[Review]]


def read_single(file: ReviewFile, layout: Layout, faults: Faults) -> Iterator[Review]:
    """Yield the one review of a text file in a class folder.

    Raises:
        DataError: If it cannot be read, or is not UTF-8.
    """
    assert file.label is not None
    try:
        content = file.path.read_bytes()
        if file.path.suffix == ".gz":
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file.path}: invalid UTF-8 (byte {error.start + 1}). "
            "Convert the file, for example with iconv -t UTF-8."
        ) from error
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{file.path}: cannot be read ({error}). "
            "Give a file that you may read, or get this one again."
        ) from error
    yield from _review(text, [file.label], file.split, file.place, layout, faults)


def read_table(file: ReviewFile, layout: Layout, faults: Faults) -> Iterator[Review]:
    """Yield the rows of a table with a header; commas, semicolons or tabs are between columns.

    Raises:
        DataError: If the file cannot be read, lacks a column, or its quotes do not match.
    """
    lines = (f"{line}\n" for line in read_lines(file.path))  # a quoted text may have line breaks
    place = f"{file.place}:1"
    try:
        separator = find_separator(file.path, _wanted(layout))
        rows = csv.reader(lines, delimiter=separator, strict=True)
        header = _header(next(rows))
        _check_header(file, header, layout)
        while True:
            place = f"{file.place}:{rows.line_num + 1}"
            row = next(rows, None)
            if row is None:
                return
            if row and len(row) != len(header):
                faults.add(
                    _MALFORMED,
                    f"{place} ({len(row)} columns, not {len(header)}: quote a text that has "
                    f"{separator!r} in it)",
                )
            elif row:
                fields: dict[str, object] = dict(zip(header, row, strict=True))
                yield from _labelled(fields, file, place, layout, faults)
    except csv.Error as error:
        raise DataError(
            f"{file.path}: the row from {place} cannot be read ({error}). Put a text that has "
            'quotes in it between quotes, and write its own twice: "a ""must"" see".'
        ) from error


def _header(row: list[str]) -> list[str]:
    return [name.strip() for name in row]


def _wanted(layout: Layout) -> list[str]:
    columns = (layout.text_column, layout.label_column, layout.split_column)
    return [name for name in columns if name is not None]


def _check_header(file: ReviewFile, header: list[str], layout: Layout) -> None:
    missing = [name for name in _wanted(layout) if name not in header]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if missing:
        raise DataError(
            f"{file.path}:1: no column {' and none '.join(map(repr, missing))}; there are "
            f"{some_of(map(repr, header))}. Set --data.text_column, --data.label_column or "
            "--data.split_column to one of these."
        )
    if repeated:
        raise DataError(
            f"{file.path}:1: columns of the same name: {', '.join(map(repr, repeated))}. Name each "
            "once."
        )


def read_jsonl(file: ReviewFile, layout: Layout, faults: Faults) -> Iterator[Review]:
    """Yield the objects of a file that has one on each line; labels are texts, numbers or lists.

    Raises:
        DataError: If the file cannot be read.
    """
    for number, line in enumerate(read_lines(file.path), start=1):
        place = f"{file.place}:{number}"
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.add(_MALFORMED, f"{place} (not JSON: {error})")
            continue
        if not isinstance(fields, dict):
            faults.add(_MALFORMED, f"{place} (not an object)")
        elif missing := [name for name in _wanted(layout) if name not in fields]:
            found = some_of(map(repr, fields)) or "nothing"
            faults.add(_NO_FIELD, f"{place} (no {', '.join(map(repr, missing))}, but {found})")
        else:
            yield from _labelled(fields, file, place, layout, faults)


def read_npz(file: ReviewFile, layout: Layout, faults: Faults) -> Iterator[Review]:
    """Yield the number sequences of an ``.npz`` as texts, whose words are the numbers.

    Raises:
        DataError: If the file cannot be read without pickle, or its arrays do not fit together.
    """
    for split, row, text, label in read_arrays(file.path):
        place = f"{file.place}: x_{split}[{row}]"
        yield from _review(text, [label], split, place, layout, faults)


def read_lines_alone(file: ReviewFile, layout: Layout, faults: Faults) -> Iterator[Review]:  # noqa: ARG001
    """Yield the lines of a file as texts without labels.

    Raises:
        DataError: If the file cannot be read.
    """
    for number, line in enumerate(read_lines(file.path), start=1):
        yield Review(line, (), None, f"{file.place}:{number}")


def _labelled(
    fields: Mapping[str, object], file: ReviewFile, place: str, layout: Layout, faults: Faults
) -> Iterator[Review]:
    """Yield the review of a row or an object, or note what is wrong with it."""
    text = fields[layout.text_column]
    if not isinstance(text, str):
        faults.add(_MALFORMED, f"{place} (its text is {json.dumps(text)[:80]})")
        return
    if layout.label_column is None:
        yield from _review(text, [], None, place, layout, faults)
        return
    labels = _labels(fields[layout.label_column], layout.label_separator)
    if not labels or not all(labels):
        faults.add(_NO_LABEL, place)
        return
    split = file.split
    column = layout.split_column or "split"
    if split is None and column in fields:
        name = str(fields[column]).strip()
        split = next((role for role, own in layout.split_names.items() if own == name), None)
        if split is None:
            faults.add(_OTHER_SPLIT, f"{place} ({name!r})")
            return
    yield from _review(text, labels, split, place, layout, faults)


def _labels(value: object, separator: str) -> list[str]:
    if isinstance(value, list):
        return [name for each in value for name in _labels(each, "") or [""]]
    if isinstance(value, str):
        parts = value.split(separator) if separator else [value]
        return [part.strip() for part in parts]
    return [json.dumps(value)] if isinstance(value, int | float) else []


def _review(
    text: str,
    labels: list[str],
    split: str | None,
    place: str,
    layout: Layout,
    faults: Faults,
) -> Iterator[Review]:
    names = layout.label_names
    if names and (unnamed := [label for label in labels if label not in names]):
        faults.add(_OTHER_LABEL, f"{', '.join(map(repr, unnamed))} ({place})")
        return
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can spell a surrogate alone
        faults.add(_HALF, place)
        return
    yield Review(
        " ".join(text.split()), tuple(names.get(label, label) for label in labels), split, place
    )
