"""Texts as sequences of numbers in an ``.npz``, as Keras has IMDB; never with pickle."""

import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2seq.errors import DataError
from seq2seq.saved_arrays import parse_array

_SPLITS = ("train", "val", "test")
_CONVERSION = """\
  import numpy as np
  new = {{}}
  with np.load("{name}", allow_pickle=True) as old:
      for split in ("train", "test"):
          rows = old["x_" + split]
          new["x_" + split] = np.concatenate([np.array(row, dtype=np.int64) for row in rows])
          new["x_" + split + "_offsets"] = np.cumsum([0, *map(len, rows)])
          new["y_" + split] = old["y_" + split].astype(np.int64)
  np.savez_compressed("flat.npz", **new)"""


def read_arrays(path: Path) -> Iterator[tuple[str, int, str, str]]:
    """Yield the texts of an ``.npz`` with ``x_train`` and ``y_train``, and perhaps others.

    ``x_train`` has all numbers end to end, where ``x_train_offsets`` says where each text begins
    and where the last ends; or without offsets it has a row for each text, filled up with zeros on
    either side. ``y_train`` has the number of each class. Likewise ``val`` and ``test``.

    Args:
        path: The file.

    Yields:
        Split, place in the split, the numbers joined by spaces, and the label.

    Raises:
        DataError: If the file cannot be read, needs pickle, or its arrays do not fit together.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not an .npz")
        with np.load(path, allow_pickle=False) as arrays:
            splits = [split for split in _SPLITS if f"x_{split}" in arrays.files]
            if "train" not in splits:
                found = ", ".join(arrays.files) or "none"
                raise DataError(
                    f"{path}: no array x_train; there are {found}. Name the arrays x_train, "
                    "y_train, x_test and y_test."
                )
            for split in splits:
                yield from _read_split(path, arrays, split)
    except DataError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path}: holds Python objects, such as rows of different lengths, which only "
                "pickle can read, and a pickle can run any code. If you trust the file, convert it "
                f"once and give flat.npz:\n{_CONVERSION.format(name=path.name)}"
            ) from error
        raise DataError(
            f"{path}: cannot be read ({error}). Give an .npz that numpy.savez wrote."
        ) from error


def _read_split(path: Path, arrays: Any, split: str) -> Iterator[tuple[str, int, str, str]]:
    name = f"x_{split}"
    if f"y_{split}" not in arrays.files:
        raise DataError(f"{path}: {name} has no labels. Add them as y_{split}.")
    labels = _integers(path, arrays, f"y_{split}", 1)
    if f"{name}_offsets" in arrays.files:
        numbers = _integers(path, arrays, name, 1)
        offsets = _integers(path, arrays, f"{name}_offsets", 1)
        is_whole = len(offsets) and offsets[0] == 0 and offsets[-1] == len(numbers)
        if not is_whole or (np.diff(offsets) < 0).any():
            raise DataError(
                f"{path}: {name}_offsets must rise from 0 to {len(numbers)}, the length of {name}."
            )
        rows = (numbers[start:end] for start, end in pairwise(offsets))
        count = len(offsets) - 1
    else:
        table = _integers(path, arrays, name, 2)
        rows, count = (row[row != 0] for row in table), len(table)
    if count != len(labels):
        raise DataError(
            f"{path}: {name} has {count} texts, y_{split} has {len(labels)} labels. Give each text "
            "one label."
        )
    for place, (row, label) in enumerate(zip(rows, labels, strict=True)):
        yield split, place, " ".join(map(str, row.tolist())), str(int(label))


def _integers(path: Path, arrays: Any, name: str, dimensions: int) -> NDArray[np.integer[Any]]:
    array: NDArray[Any] = parse_array(lambda: arrays[name])
    if not np.issubdtype(array.dtype, np.integer) or array.ndim != dimensions:
        hint = f", or add {name}_offsets" if dimensions == 2 else ""
        raise DataError(
            f"{path}: {name} has {array.ndim} dimensions and the type {array.dtype}. Make it "
            f"integers in {dimensions}{hint}."
        )
    if name.startswith("x_") and array.size and array.min() < 0:
        raise DataError(f"{path}: {name} has {array.min()}. Number words from 1 on; 0 fills rows.")
    return array
