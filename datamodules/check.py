"""Reads all files of a data module, to find the bad ones before a run does."""

import csv
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datamodules.base import Reading
from seq2seq.errors import DataError


class CutOff(NamedTuple):
    """What a reading returns of a video whose broken tail is cut off, as the options have it.

    Attributes:
        seconds: Where it is cut.
    """

    seconds: float


class Finding(NamedTuple):
    """What a reading found.

    Attributes:
        name: The file.
        problem: Why it cannot be used, or where it is cut off; None where it is sound.
        is_cut: Whether what is before its broken tail is used.
    """

    name: str
    problem: str | None
    is_cut: bool = False

    @property
    def status(self) -> str:
        """``ok``, ``cut`` or ``bad``."""
        if self.problem is None:
            return "ok"
        return "cut" if self.is_cut else "bad"


def read_all(readings: Iterable[Reading]) -> list[Finding]:
    """Read files with all cores, a bar on the terminal saying how far it is.

    Args:
        readings: What to read.

    Returns:
        What was found, in the same order.
    """
    readings = list(readings)
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("checking data"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    # Threads do: pictures and videos are decoded without the lock of the interpreter.
    pool = ThreadPoolExecutor(max(2, os.cpu_count() or 1))  # files are waited for, too
    try:
        with progress:
            return list(progress.track(pool.map(_find, readings), total=len(readings)))
    finally:
        pool.shutdown(cancel_futures=True)


def write_report(file: Path, findings: Sequence[Finding]) -> None:
    """Write findings as a table: ``file,status,problem``; the status is ``ok``, ``cut`` or ``bad``.

    Raises:
        DataError: If it cannot be written.
    """
    rows = [(each.name, each.status, each.problem or "") for each in findings]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            csv.writer(stream).writerows([("file", "status", "problem"), *rows])
    except OSError as error:
        raise DataError(
            f"{file}: the report cannot be written ({error.strerror}). Give another place with "
            "--report."
        ) from error


def _find(reading: Reading) -> Finding:
    try:
        found = reading.read()
    except (DataError, OSError) as error:
        return Finding(reading.name, _without_name(str(error), reading.name))
    if isinstance(found, CutOff):
        return Finding(reading.name, f"cut at {found.seconds:.2f} s", is_cut=True)
    return Finding(reading.name, None)


def _without_name(problem: str, name: str) -> str:
    """Return a problem without the file's name at its start, which stands beside it."""
    path = re.sub(r" \(\w+\)$", "", name)  # such as "reviews.csv (labels)"
    found = re.match(rf"{re.escape(path)}(?:: |:(?P<line>\d+): | )", problem)
    if found is None:
        return problem
    line = f"line {found['line']}: " if found["line"] else ""
    return line + problem[found.end() :]
