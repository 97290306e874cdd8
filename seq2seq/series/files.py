"""Files of series: tables and arrays, plain or compressed."""

import gzip
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from seq2seq.errors import DataError
from seq2seq.series.arrays import read_npy, read_npz
from seq2seq.series.base import Missing, Series
from seq2seq.series.columns import Columns, settle
from seq2seq.series.tables import read_table

Reader = Callable[[Path, bytes, Sequence[str] | None, str | None], list[Columns]]

_READERS: dict[str, Reader] = {
    ".csv": read_table,
    ".tsv": read_table,
    ".txt": read_table,
    ".npy": read_npy,
    ".npz": read_npz,
}


def read_series(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    time_column: str | None = None,
    missing: Missing = "error",
) -> Series:
    """Read one series.

    A table (``.csv``, ``.tsv``, ``.txt``) has a row for each step. Its columns may be separated by
    commas, semicolons or tabs, and have decimal commas where commas do not separate them. Without
    a header, they are called 1, 2, and so on; so are those of an array (``.npy``, ``.npz``), which
    is ``(time,)`` or ``(time, columns)``. Each may be compressed with gzip.

    Args:
        path: The file.
        columns: Names of the channels, in the order wanted; None for all but the time.
        time_column: Name of the column that tells the time; None where there is none.
        missing: Whether values that are missing (``NA``, ``NaN``, empty and so on) or infinite are
            an ``error``, are filled in with ``interpolate``, or are ``keep``: marked as unknown.

    Raises:
        DataError: If the file cannot be used.
    """
    found = read_all_series(path, columns=columns, time_column=time_column, missing=missing)
    if len(found) > 1:
        raise DataError(f"{path}: has {len(found)} series, where one is needed. Save it alone.")
    return found[0]


def read_all_series(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    time_column: str | None = None,
    missing: Missing = "error",
) -> list[Series]:
    """Read one series, or the several ones of an array ``(series, time, columns)``.

    Args:
        path: As for ``read_series``.
        columns: As for ``read_series``.
        time_column: As for ``read_series``.
        missing: As for ``read_series``.

    Raises:
        DataError: If the file cannot be used.
    """
    path = Path(path)
    is_compressed = path.suffix.lower() == ".gz"
    kind = (Path(path.stem) if is_compressed else path).suffix.lower()
    if kind not in _READERS:
        raise DataError(
            f"{path}: not known as a file of series. Give one that ends in "
            f"{', '.join(_READERS)}, or these and .gz."
        )
    found = _READERS[kind](path, _content(path, is_compressed), columns, time_column)
    return [settle(path, part, missing) for part in found]


def _content(path: Path, is_compressed: bool) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if is_compressed else content
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}). Give a file that you may read, or get this one "
            "again."
        ) from error
