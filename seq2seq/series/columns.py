"""The columns of a file: which of them are channels, and what is missing in those."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from seq2seq.errors import DataError
from seq2seq.series.base import Missing, Series, interpolate
from seq2seq.series.order import check_order

_MOST_LISTED = 5


class Choice(NamedTuple):
    """Which columns of a file are read.

    Attributes:
        channels: Places of the channels, from 0.
        names: Of the channels.
        time: Place of the column that tells the time; None where there is none.
    """

    channels: tuple[int, ...]
    names: tuple[str, ...]
    time: int | None


class Columns(NamedTuple):
    """What a file says.

    Attributes:
        values: NaN or infinite where missing, float64 ``(time, channels)``.
        names: Of the channels.
        times: As the file writes them; None where it does not tell.
        places: For a message, where each step stands: the row, from 1.
        part: For a message, which part of the file it is; empty where there is only one.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...]
    times: tuple[str, ...] | None
    places: Sequence[int]
    part: str = ""


def choose_columns(
    path: Path,
    names: Sequence[str],
    columns: Sequence[str] | None,
    time_column: str | None,
    hint: str = "",
) -> Choice:
    """Find the columns that are wanted.

    Args:
        path: The file, for messages.
        names: Of its columns.
        columns: Names of the channels, in the order wanted; None for all but the time.
        time_column: Name of the column that tells the time; None where there is none.
        hint: What may be the reason where a column is not there, for the message.

    Raises:
        DataError: If names are repeated, a column is not there, or none is left.
    """
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(
            f"{path}: several columns have the same name: {_listed(repeated)}. Rename them."
        )
    wanted = [name for name in names if name != time_column] if columns is None else [*columns]
    asked = wanted if time_column is None else [*wanted, time_column]
    absent = [name for name in asked if name not in names]
    if absent:
        raise DataError(
            f"{path}: has no column {_listed(absent)}. Its columns are {_listed(names)}: "
            f"set columns and time_column to some of them.{hint}"
        )
    if len(set(asked)) < len(asked) or not wanted:
        raise DataError(
            f"{path}: columns={wanted} with time_column={time_column!r}: name one or more columns "
            "to read, each once, and none that holds the times."
        )
    time = None if time_column is None else names.index(time_column)
    return Choice(tuple(map(names.index, wanted)), tuple(wanted), time)


def settle(path: Path, columns: Columns, missing: Missing) -> Series:
    """Return the columns as a series, once it is settled what becomes of missing values.

    Args:
        path: The file, for messages.
        columns: What it says.
        missing: What becomes of missing values.

    Raises:
        DataError: If there are no values, some are missing and must not be, or the times do not
            ascend.
    """
    if not len(columns.values):
        raise DataError(f"{path}: has no rows of values. Give a file that has some.")
    is_known = np.isfinite(columns.values)
    is_empty = ~np.any(is_known, axis=0, keepdims=True)[0]
    empty = [name for name, has_none in zip(columns.names, is_empty, strict=True) if has_none]
    if empty:
        raise DataError(
            f"{path}: {columns.part}no value in column {_listed(empty)}. Leave it out of columns."
        )
    if missing == "error" and not is_known.all():
        raise DataError(_missing_values(path, columns, is_known))
    if columns.times is not None:
        check_order(path, columns.times, columns.places, columns.part)
    values = torch.from_numpy(np.where(is_known, columns.values, 0.0))
    known = torch.from_numpy(is_known)
    if missing == "interpolate":
        values, known = interpolate(values, known)
    return Series(values, known, columns.names, columns.times)


def _missing_values(path: Path, columns: Columns, is_known: NDArray[np.bool_]) -> str:
    steps, channels = np.nonzero(~is_known)
    listed = [
        f"column {columns.names[channel]!r}, row {columns.places[step]}"
        for step, channel in zip(steps[:_MOST_LISTED], channels[:_MOST_LISTED], strict=True)
    ]
    more = len(steps) - len(listed)
    return (
        f"{path}: {columns.part}values that are missing or infinite ({len(steps)}): "
        f"{'; '.join(listed)}{f'; and {more} more' if more else ''}. Mend them, or set "
        "--data.missing (in seq2seq-predict: --missing) to interpolate, to fill them in from their "
        "neighbours, or to keep, to leave them out."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
