"""Every picture is decoded once before training, so that no bad file ends a run later."""

import csv
import json
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import PIL
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datamodules.cache import content_key, require_prepared
from datamodules.caption_files import CaptionedPicture
from datamodules.faults import some_of
from seq2seq.appearing import appearing
from seq2seq.errors import ConfigError, DataError
from seq2seq.pictures import open_picture

OnBadPicture = Literal["error", "quarantine"]

_log = logging.getLogger(__name__)


def check_pictures(
    pictures: Sequence[CaptionedPicture],
    cache: Path,
    *,
    policy: OnBadPicture,
    max_bad_share: float,
    workers: int,
    quarantine_file: Path,
) -> None:
    """Decode every picture, unless that has been done, and report the bad ones.

    The result is in the cache, by the names, sizes and times of the files; ``good_pictures`` reads
    it. Meant for ``prepare_data``, which one process of a machine runs.

    Args:
        pictures: What to check; a file that is there several times is decoded once.
        cache: Folder of the cache.
        policy: Whether a bad picture is an error, or is left out with a warning.
        max_bad_share: Largest share of bad pictures that ``quarantine`` accepts.
        workers: Number of threads.
        quarantine_file: Where ``quarantine`` lists the bad ones: ``path,reason``.

    Raises:
        ConfigError: If ``max_bad_share`` is not a share.
        DataError: If there are bad pictures and the policy does not accept them, or a file cannot
            be written.
    """
    if not 0 <= max_bad_share <= 1:
        raise ConfigError(
            f"--data.max_bad_share={max_bad_share} is not a share: choose 0 to 1, 0.01 for 1 %."
        )
    paths = _paths(pictures)
    record = _record_path(paths, cache)
    if not record.is_file():
        bad = dict(_find_bad(paths, workers))
        with appearing(record) as partial:
            partial.write_text(json.dumps(bad), encoding="utf-8")
    bad = _read_record(record)
    if not bad:
        return
    count = f"{len(bad)} of {len(paths)} pictures cannot be used"
    if policy == "error":
        listed = some_of((f"{path}: {reason}" for path, reason in bad.items()), "\n  - ")
        raise DataError(
            f"{count}:\n  - {listed}\n"
            "Mend them, or leave them out with --data.on_bad_picture quarantine."
        )
    _write_quarantine(quarantine_file, bad)
    if len(bad) > max_bad_share * len(paths):
        raise DataError(
            f"{count}, more than the accepted share of {max_bad_share:g}; {quarantine_file} has "
            "the reasons. Mend them, or raise --data.max_bad_share."
        )
    _log.warning("%s and are left out; %s has the reasons.", count, quarantine_file)


def good_pictures(pictures: Sequence[CaptionedPicture], cache: Path) -> list[CaptionedPicture]:
    """Return the pictures that ``check_pictures`` could decode.

    Args:
        pictures: The same as it was given.
        cache: The same folder.

    Raises:
        DataError: If they have not been checked, or changed since.
    """
    record = _record_path(_paths(pictures), cache)
    require_prepared(record)
    bad = _read_record(record)
    return [picture for picture in pictures if str(picture.path) not in bad]


def _paths(pictures: Sequence[CaptionedPicture]) -> list[Path]:
    return sorted({picture.path for picture in pictures})


def _record_path(paths: Sequence[Path], cache: Path) -> Path:
    # Sizes and times here, not contents: reading all pictures at each start would take minutes.
    # What Pillow takes for a good picture is Pillow's.
    options = (PIL.__version__, Image.MAX_IMAGE_PIXELS, [_stamp(path) for path in paths])
    return cache / f"pictures-{content_key((), *options)}.json"


def _stamp(path: Path) -> tuple[str, int, int, bool]:
    try:
        status = path.stat()
    except OSError:  # it will be among the bad ones
        return str(path), -1, -1, False
    # A file that may be read again keeps its size and its time.
    return str(path), status.st_size, status.st_mtime_ns, os.access(path, os.R_OK)


def _read_record(record: Path) -> dict[str, str]:
    bad: dict[str, str] = json.loads(record.read_text(encoding="utf-8"))
    return bad


def _find_bad(paths: Sequence[Path], workers: int) -> Iterator[tuple[str, str]]:
    """Yield the pictures that cannot be decoded, each with the reason."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("checking pictures"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    # Threads do: Pillow decodes without the lock of the interpreter.
    with progress, ThreadPoolExecutor(max(1, workers)) as pool:
        reasons = progress.track(pool.map(_fault, paths), total=len(paths))
        for path, reason in zip(paths, reasons, strict=True):
            if reason is not None:
                yield str(path), reason


def _fault(path: Path) -> str | None:
    try:
        open_picture(path)
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def _write_quarantine(file: Path, bad: dict[str, str]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("path", "reason"), *bad.items()])
    except OSError as error:
        raise DataError(
            f"{file}: the list of bad pictures cannot be written ({error.strerror}). "
            "Give a place that you may write to."
        ) from error
