"""Arrays of series: ``.npy`` and ``.npz``, which must not need pickle."""

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2seq.errors import DataError
from seq2seq.series.columns import Columns, choose_columns

# Booleans, integers with and without sign, floats.
_NUMBERS = "biuf"


def read_npy(
    path: Path, content: bytes, columns: Sequence[str] | None, time_column: str | None
) -> list[Columns]:
    """Return the series of an array: ``(time,)``, ``(time, columns)``, ``(series, time, columns)``.

    Args:
        path: The file, for messages.
        content: What is in it.
        columns: Numbers of the columns to read, from 1; None for all but the time.
        time_column: Number of the column that tells the time; None where there is none.

    Raises:
        DataError: If it is no array of numbers, has another number of axes, or not the columns.
    """
    return _columns(path, _load(path, content), columns, time_column)


def read_npz(
    path: Path, content: bytes, columns: Sequence[str] | None, time_column: str | None
) -> list[Columns]:
    """Return the series of the only array of an archive, as ``read_npy`` does.

    Raises:
        DataError: If it has none or several, or that one cannot be used.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            arrays = [archive.read(name) for name in names[:1]]
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError) as error:
        raise DataError(
            f"{path}: cannot be read as an archive of arrays ({error}). Get it again."
        ) from error
    if len(names) != 1:
        listed = ", ".join(name.removesuffix(".npy") for name in names) or "none"
        raise DataError(
            f"{path}: needs one array, and has {len(names)} ({listed}). Save the one of the series "
            "alone, with numpy.save."
        )
    return _columns(path, _load(path, arrays[0]), columns, time_column)


def _load(path: Path, content: bytes) -> NDArray[Any]:
    try:
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(
            f"{path}: cannot be read as an array of numbers ({error}). Save one with numpy.save; "
            "objects are refused, because reading them can run code."
        ) from error
    if array.dtype.kind not in _NUMBERS:
        raise DataError(
            f"{path}: is an array of {array.dtype}, not of numbers. Convert it with astype(float)."
        )
    return array


def _columns(
    path: Path, array: NDArray[Any], columns: Sequence[str] | None, time_column: str | None
) -> list[Columns]:
    if array.ndim not in (1, 2, 3):
        raise DataError(
            f"{path}: is an array with {array.ndim} axes {array.shape}. Save it as (time,), "
            "(time, columns) or (series, time, columns)."
        )
    parts = array if array.ndim == 3 else array.reshape(1, len(array), *array.shape[1:] or (1,))
    names = [str(number) for number in range(1, parts.shape[2] + 1)]
    choice = choose_columns(path, names, columns, time_column)
    if not len(parts):
        raise DataError(f"{path}: is an array {array.shape} without any series. Give some.")
    return [
        Columns(
            part[:, choice.channels].astype(np.float64),
            choice.names,
            None if choice.time is None else tuple(f"{time:.15g}" for time in part[:, choice.time]),
            range(1, len(part) + 1),
            f"series {number}, " if len(parts) > 1 else "",
        )
        for number, part in enumerate(parts, start=1)
    ]
