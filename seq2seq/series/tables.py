"""Tables of series: text with a row for each step of time."""

import csv
import io
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seq2seq.errors import DataError
from seq2seq.series.columns import Choice, Columns, choose_columns

# The first of them that a line has separates its cells: commas may be decimal then.
_SEPARATORS = ("\t", ";", ",")
_NOT_SEPARATED = " Columns are separated by commas, semicolons or tabs, and here there is only one."
_QUOTED = re.compile('"[^"]*"')
_LONGEST_HEADER = 100_000  # characters; longer cells than that no table has
# Stricter than `float`, which reads 1_000 as well.
_NUMBER = re.compile(r"[+-]?(?=[.,]?\d)\d*([.,]?)\d*(?:[eE][+-]?\d+)?", re.ASCII)
_ABSENT = {"", "na", "n/a", "#n/a", "nan", "null", "none", "-", ".", "?"}
_INFINITE = {"inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"}
_MISSING = _ABSENT | _INFINITE


class _Row(NamedTuple):
    line: int
    cells: list[str]


def read_table(
    path: Path, content: bytes, columns: Sequence[str] | None, time_column: str | None
) -> list[Columns]:
    """Return the one series of a table.

    Args:
        path: The file, for messages.
        content: What is in it: UTF-8, with or without a byte order mark.
        columns: Names of the columns to read; None for all but the time.
        time_column: Name of the column that tells the time; None where there is none.

    Raises:
        DataError: If it is empty or not UTF-8, its rows differ in their number of cells, a cell
            that is to be read is no number, or a column is not there.
    """
    text = _decode(path, content)
    separator = _separator(text)
    rows = _rows(path, text, separator)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: the file is empty. Give one with a row for each step of time.")
    wanted = [*(columns or ()), *([] if time_column is None else [time_column])]
    hint = _NOT_SEPARATED if len(first.cells) == 1 else ""
    numbers = _Numbers(path, separator != ",", hint)
    numbered = [str(number) for number in range(1, len(first.cells) + 1)]
    if numbers.is_header(first.cells, numbered, wanted):
        # Some programs write the numbers of the rows first, without a name.
        names = [cell or number for cell, number in zip(first.cells, numbered, strict=True)]
        choice = choose_columns(path, names, columns, time_column, hint)
    else:
        choice = choose_columns(path, numbered, columns, time_column, hint)
        numbers.add(first, choice)
    for row in rows:
        numbers.add(row, choice)
    values = np.array(numbers.values).reshape(-1, len(choice.names))
    times = None if choice.time is None else tuple(numbers.times)
    return [Columns(values, choice.names, times, numbers.lines)]


def _decode(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: invalid UTF-8. Convert the file, for example with iconv -t UTF-8."
        ) from error


def _separator(text: str) -> str:
    """Return what separates the cells of the first row."""
    # A quoted name may have separators in it, and line breaks.
    lines = _QUOTED.sub("", text[:_LONGEST_HEADER]).splitlines()
    first = next((line for line in lines if line.strip()), "")
    return next((mark for mark in _SEPARATORS if mark in first), ",")


def _rows(path: Path, text: str, separator: str) -> Iterator[_Row]:
    """Yield rows of equally many cells.

    An empty line at the end is none. Elsewhere, it is a missing value if there is but one column.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    width, empty = 0, list[_Row]()
    line = 1
    try:
        for raw in reader:
            row = _Row(line, [cell.strip() for cell in raw] or [""])
            line = reader.line_num + 1
            if row.cells == [""]:
                empty.append(row)
                continue
            due = [*empty, row] if width else [row]
            width = width or len(row.cells)
            for each in due:
                if len(each.cells) != width:
                    raise DataError(
                        f"{path}:{each.line}: {len(each.cells)} cell(s), where the first row has "
                        f"{width}. Give every row as many, separated by {separator!r}; quote one "
                        "that has the separator in it."
                    )
            yield from due
            empty = []
    except csv.Error as error:
        raise DataError(
            f"{path}:{line}: the row cannot be read ({error}). Mend its quotes."
        ) from error


class _Numbers:
    """Reads the cells of rows.

    Args:
        path: The file, for messages.
        allows_comma: Whether a decimal mark may be a comma.
        hint: What may be the reason where a whole column is no numbers, for the message.
    """

    def __init__(self, path: Path, allows_comma: bool, hint: str) -> None:
        self.values = array("d")
        self.times: list[str] = []
        self.lines = array("q")
        self._path = path
        self._allows_comma = allows_comma
        self._hint = hint
        self._mark = ""
        self._mark_line = 0

    def is_header(self, cells: Sequence[str], numbered: Sequence[str], wanted: list[str]) -> bool:
        """Return whether the first row names the columns.

        It does if it has anything but numbers. Where it has both, as a row of dates and values,
        whoever wants columns by their numbers says that it does not.
        """
        is_number = [self._match(cell) is not None for cell in cells]
        if all(
            number or cell.lower() in _MISSING
            for number, cell in zip(is_number, cells, strict=True)
        ):
            return False
        is_by_number = bool(wanted) and set(wanted) <= set(numbered) - set(cells)
        return not (any(is_number) and is_by_number)

    def add(self, row: _Row, choice: Choice) -> None:
        """Read the cells of the next step.

        Raises:
            DataError: If one that is to be read is no number.
        """
        for place, name in zip(choice.channels, choice.names, strict=True):
            self.values.append(self._read(row, place, name))
        self.lines.append(row.line)
        if choice.time is not None:
            self.times.append(row.cells[choice.time])

    def _match(self, cell: str) -> re.Match[str] | None:
        found = _NUMBER.fullmatch(cell)
        return None if found and found[1] == "," and not self._allows_comma else found

    def _read(self, row: _Row, place: int, name: str) -> float:
        cell = row.cells[place]
        found = self._match(cell)
        if found is None:
            if cell.lower() in _MISSING:
                return float("nan")
            advice = "Mend it, or leave it empty if the value is missing."
            if not self.lines:  # the first row: all of the column will be like that
                advice = (
                    f"If the column tells the time, set time_column to {name!r}; or name the "
                    "columns to read in columns: by their numbers, from 1, if there is no header."
                    f"{self._hint}"
                )
            raise DataError(
                f"{self._path}:{row.line}: column {name!r} has {cell!r}, which is no number. "
                f"{advice}"
            )
        mark = found[1]
        if mark and mark != self._mark:
            if self._mark:
                raise DataError(
                    f"{self._path}:{row.line}: column {name!r} has {cell!r} with the decimal mark "
                    f"{mark!r}, and line {self._mark_line} has {self._mark!r}. Use one of them, "
                    "and nothing between thousands."
                )
            self._mark, self._mark_line = mark, row.line
        return float(cell.replace(",", "."))
