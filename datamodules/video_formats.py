"""The sources of labelled videos: each reader yields what one says, and notes what is wrong."""

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from datamodules.faults import Fault, Faults
from datamodules.text_files import find_separator, read_lines
from seq2seq.errors import DataError
from seq2seq.videos import find_videos

SPLITS = ("train", "val", "test")

_COLUMNS = ("path", "label", "start", "end", "group", "split")
_UCF_TRAIN = re.compile(r"trainlist\d*\.txt")
_UCF_LINE = re.compile(r"(?P<name>[^/]+/.+?)(?:\s+(?P<number>\d+))?\s*")
# Clips with the same number of a class are cut from the same video.
_UCF_GROUP = re.compile(r"(?P<group>.*v_.+_g\d+)_c\d+\.\w+")

_MALFORMED = Fault("entries that cannot be read", "Mend them.")
_NO_LABEL = Fault("entries without a label", "Give them one, or remove them.")
_NO_GROUP = Fault("entries without a group", "Name the group of each video, or remove the column.")
_BAD_TIMES = Fault(
    "times that cannot be", "Give seconds from 0 on, the end after the start, or leave them empty."
)
_BAD_SPLIT = Fault("unknown splits", f"Known are {', '.join(SPLITS)}. Rename them.")
_NO_VIDEOS = Fault("class folders without videos", "Add some, or remove the folder.")
_TOO_DEEP = Fault(
    "videos that do not lie in a class folder",
    "A class folder holds files, or one folder of frames for each video; folders of splits are "
    f"named {', '.join(SPLITS)}. Move them, or list them in a table.",
)
_NO_FRAMES = Fault("folders without frames", "Fill or remove them.")
_BAD_NUMBER = Fault(
    "classes that classInd.txt does not have, or has with another number",
    "Take all lists from one download.",
)


class VideoEntry(NamedTuple):
    """A video, or a part of one, and what it shows.

    Attributes:
        path: A file, or a folder of frames.
        labels: One or more, in order.
        start_seconds: Start of the part.
        end_seconds: Its end; None for that of the video.
        group: What it must not share with another split, such as the person or the source video;
            the name of the video where the source names none.
        split: ``train``, ``val`` or ``test``; None where the source names none.
        place: Where it stands, such as ``clips.csv:12``, or its path below the folder.
    """

    path: Path
    labels: tuple[str, ...]
    start_seconds: float
    end_seconds: float | None
    group: str
    split: str | None
    place: str


def read_folders(source: Path, faults: Faults) -> Iterator[VideoEntry]:
    """Yield the videos of a folder per class, or of such folders in ``train``, ``val``, ``test``.

    Raises:
        DataError: If there are no class folders.
    """
    names = [folder.name for folder in _folders(source)]
    if "train" in names and set(names) <= set(SPLITS):
        for split in filter(names.__contains__, SPLITS):
            yield from _read_classes(source, split, faults)
    else:
        yield from _read_classes(source, None, faults)


def _read_classes(source: Path, split: str | None, faults: Faults) -> Iterator[VideoEntry]:
    root = source / split if split else source
    classes = _folders(root)
    if not classes:
        raise DataError(
            f"{root}: has no class folders. Put the videos of each class in a folder that has its "
            "name, or list them in a table."
        )
    for folder in classes:
        videos = find_videos(folder)
        if not videos:
            faults.add(_NO_VIDEOS, str(folder))
        for empty in _folders(folder):
            if videos and not any(video.is_relative_to(empty) for video in videos):
                faults.add(_NO_FRAMES, str(empty))
        for path in videos:
            if path.parent != folder:  # deeper, or the frames lie in the class folder
                faults.add(_TOO_DEEP, str(path))
                continue
            name = path.relative_to(source).as_posix()
            yield VideoEntry(path, (folder.name,), 0.0, None, name, split, name)


def _folders(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def read_table(source: Path, root: Path, separator: str, faults: Faults) -> Iterator[VideoEntry]:
    """Yield the rows of a table with ``path``, ``label``, and perhaps the other columns.

    Commas, semicolons or tabs are between columns; ``separator`` is between labels.

    Raises:
        DataError: If the file cannot be read, its header names other columns, or its quotes do
            not match.
    """
    lines = (f"{line}\n" for line in read_lines(source))  # a quoted label may have line breaks
    place = f"{source.name}:1"
    try:
        delimiter = find_separator(source, _COLUMNS)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        header = [name.strip().lower() for name in next(rows)]
        _check_header(source, header)
        while True:
            place = f"{source.name}:{rows.line_num + 1}"
            row = next(rows, None)
            if row is None:
                return
            if row and len(row) != len(header):
                faults.add(
                    _MALFORMED,
                    f"{place} ({len(row)} columns, not {len(header)}: quote a value that has "
                    f"{delimiter!r} in it)",
                )
            elif row:
                fields = dict(zip(header, map(str.strip, row), strict=True))
                yield from _read_row(fields, root, separator, place, faults)
    except csv.Error as error:
        raise DataError(
            f"{source}: the row from {place} cannot be read ({error}). Put a value that has "
            'quotes in it between quotes, and write its own twice: "a ""stop"" sign".'
        ) from error


def _check_header(source: Path, header: list[str]) -> None:
    unknown = [name for name in header if name not in _COLUMNS]
    missing = [name for name in _COLUMNS[:2] if name not in header]
    if unknown or missing or len(set(header)) < len(header):
        raise DataError(
            f"{source}:1: the header names the columns {', '.join(header)}, where 'path' and "
            f"'label' are needed, and {', '.join(map(repr, _COLUMNS[2:]))} may be, each once. "
            "Add, rename or remove columns."
        )


def _read_row(
    fields: dict[str, str], root: Path, separator: str, place: str, faults: Faults
) -> Iterator[VideoEntry]:
    """Yield the entry of a row, or note what is wrong with it."""
    path, split = fields["path"], fields.get("split") or None
    labels = _split_label(fields["label"], separator)
    start, end = _seconds(fields.get("start", ""), 0.0), _seconds(fields.get("end", ""), math.inf)
    problems = []
    if not path:
        problems.append((_MALFORMED, f"{place} (no path)"))
    if not all(labels):
        problems.append((_NO_LABEL, place))
    if "group" in fields and not fields["group"]:
        problems.append((_NO_GROUP, place))
    if split not in (*SPLITS, None):
        problems.append((_BAD_SPLIT, f"{split!r} ({place})"))
    if not 0 <= start < end:  # nor is NaN
        written = f"{fields.get('start') or 0} to {fields.get('end') or 'the end'}"
        problems.append((_BAD_TIMES, f"{written} ({place})"))
    for fault, item in problems:
        faults.add(fault, item)
    if not problems:
        # So that a/./b and a/b are one group; the same wherever the root is.
        group = fields.get("group") or Path(path).as_posix()
        last = None if end == math.inf else end
        yield VideoEntry(root / path, labels, start, last, group, split, place)


def _split_label(text: str, separator: str) -> tuple[str, ...]:
    if not separator or not text:
        return (text,)
    # Two spaces are one separator, two semicolons an empty label.
    parts = text.split() if separator == " " else text.split(separator)
    return tuple(part.strip() for part in parts)


def _seconds(text: str, default: float) -> float:
    try:
        value = float(text) if text else default
    except ValueError:
        return math.nan
    return math.nan if text and math.isinf(value) else value


def is_ucf_list(path: Path) -> bool:
    """Return whether a file is a training list of UCF101, going by its name."""
    return _UCF_TRAIN.fullmatch(path.name) is not None


def read_ucf(source: Path, root: Path, faults: Faults) -> Iterator[VideoEntry]:
    """Yield the lines of a training list of UCF101, and of the test list beside it.

    The class is the folder; the numbers are compared with ``classInd.txt`` if that lies there, too.
    The group is the source video, which the names of UCF101 tell.

    Raises:
        DataError: If it is not named as UCF101 names it, or a list cannot be read.
    """
    if not is_ucf_list(source):
        raise DataError(
            f"{source}: is not named like a training list of UCF101, trainlist01.txt. Give that "
            "file; the test list is looked for beside it."
        )
    numbers = _read_classes_of_ucf(source.with_name("classInd.txt"), faults)
    test = source.with_name(source.name.replace("train", "test"))
    for split, path in (("train", source), ("test", test)):
        for place, line in _filled_lines(path):
            found = _UCF_LINE.fullmatch(line)
            if found is None:
                faults.add(_MALFORMED, f"{place} (not a class, a slash and a file name)")
                continue
            name, number = found["name"], found["number"]
            label = name.split("/")[0]
            if numbers and (label not in numbers or number not in (numbers[label], None)):
                faults.add(_BAD_NUMBER, f"{label} {number or ''}".strip() + f" ({place})")
            group = _UCF_GROUP.fullmatch(name)
            yield VideoEntry(
                root / name, (label,), 0.0, None, group["group"] if group else name, split, place
            )


def _read_classes_of_ucf(path: Path, faults: Faults) -> dict[str, str]:
    """Return the number of each class; nothing where there is no such file."""
    numbers = {}
    for place, line in _filled_lines(path) if path.is_file() else ():
        match line.split():
            case [number, label] if number.isdecimal():
                numbers[label] = number
            case _:
                faults.add(_MALFORMED, f"{place} (not a number and a class)")
    return numbers


def _filled_lines(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            yield f"{path.name}:{number}", line
