"""All frames of some videos, decoded once and kept in a memory-mapped array."""

import hashlib
import json
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from seq2seq.appearing import appearing
from seq2seq.errors import DataError
from seq2seq.videos.base import EARLY_SECONDS, Frame, Video
from seq2seq.videos.find import find_frames
from seq2seq.videos.frames import FrameReader, SampleTimes, VideoPart, span_of

_FRAMES = "frames.data"
_TIMES = "times.npy"
_OFFSETS = "offsets.npy"
_PARTS = "parts.json"
_SETTINGS = "settings.json"


class FrameStore:
    """Frames of parts of videos, in a memory-mapped file; pickled as its path, not as its content.

    By place it gives single frames, in the order of the files: what ``feature_cache`` takes.

    Args:
        folder: Where ``write_frames`` left them.
        settings: What they must have been made with.

    Attributes:
        problems: Why parts could not be read, by their place in the list.

    Raises:
        DataError: If files are missing or damaged, or were made with something else.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._folder = folder
        self._settings = settings
        try:
            found = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
            parts = json.loads((folder / _PARTS).read_text(encoding="utf-8"))
            self._times: NDArray[np.float64] = np.load(folder / _TIMES)
            self._offsets: NDArray[np.int64] = np.load(folder / _OFFSETS)
            frame = (settings["channels"], settings["size"], settings["size"])
            self._frames = _map_frames(folder / _FRAMES, (len(self._times), *frame))
            if self._offsets[-1] != len(self._times):
                raise ValueError(f"{_OFFSETS} does not fit {_TIMES}")
        except (OSError, ValueError, EOFError, LookupError) as error:
            raise DataError(
                f"{folder} is damaged ({error}). Delete this folder: it is made anew."
            ) from error
        if found != settings or len(parts) != settings["parts"]:
            raise DataError(
                f"{folder} holds frames of other videos or of another preparation than its name "
                "says. Delete this folder: it is made anew."
            )
        self._parts = [_StoredPart(*part) for part in parts]
        self.problems = {
            place: part.problem
            for place, part in enumerate(self._parts)
            if part.problem is not None
        }

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._times)

    def __getitem__(self, place: int) -> Tensor:
        """Return a frame, uint8 ``(channels, size, size)``."""
        return torch.from_numpy(np.array(self._frames[place]))

    def fingerprint(self) -> str:
        """Return a hash of all that the frames depend on, hexadecimal."""
        return _hash(self._settings)

    def times(self, part: int) -> NDArray[np.float64]:
        """Return when the frames of the file of a part are shown, seconds, ascending.

        Frames that no part shows are left out.
        """
        start, end = self._range(part)
        return self._times[start:end]

    def span(self, part: int) -> tuple[float, float]:
        """Return the start and the end of what there is of a part, seconds."""
        assert part not in self.problems
        return self._parts[part].start_seconds, self._parts[part].end_seconds

    def places(self, part: int, times_seconds: Sequence[float]) -> NDArray[np.int64]:
        """Return which frames are shown at some times of a part, as ``shown_at`` finds them.

        Args:
            part: Place of the part in the list.
            times_seconds: Times within its span, in any order.

        Returns:
            Places of frames in the store, int64 ``(time,)``.
        """
        start, end = self._range(part)
        return start + shown_at(self._times[start:end], times_seconds)

    def clip(self, part: int, times_seconds: Sequence[float]) -> Tensor:
        """Return the frames that are shown at some times, as ``places`` finds them.

        Returns:
            uint8 ``(time, channels, size, size)``.
        """
        return torch.from_numpy(self._frames[self.places(part, times_seconds)])

    def read_clips(self, part: int, sample: SampleTimes) -> Tensor:
        """Return clips of a part, as ``FrameReader.read_clips`` does."""
        return torch.stack([self.clip(part, times) for times in sample(*self.span(part))])

    def _range(self, part: int) -> tuple[int, int]:
        file = self._parts[part].file
        return int(self._offsets[file]), int(self._offsets[file + 1])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._folder, self._settings)


def shown_at(stamps: NDArray[np.float64], times: Sequence[float]) -> NDArray[np.int64]:
    """Return the places of the frames that are shown at some times.

    The frame at a time is the last one whose time stamp is not later than it, by more than a
    millisecond; before the first frame it is the first one.

    Args:
        stamps: When each frame begins to be shown, ascending, float64 ``(frames,)``, seconds.
        times: When to look, seconds, in any order.

    Returns:
        int64 ``(times,)``.
    """
    due = np.asarray(times) + EARLY_SECONDS
    return np.maximum(np.searchsorted(stamps, due, side="right") - 1, 0)


class _StoredPart(NamedTuple):
    """What is known of a part; without a problem, it has a start and an end."""

    file: int
    start_seconds: float
    end_seconds: float
    problem: str | None


def _map_frames(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if path.stat().st_size != math.prod(shape):
        raise ValueError(f"{path.name} does not fit {_TIMES}")
    if not shape[0]:  # an empty file cannot be mapped
        return np.empty(shape, dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode="r", shape=shape)


def frame_settings(reader: FrameReader, parts: Sequence[VideoPart]) -> dict[str, Any]:
    """Return what the stored frames of some parts depend on, in plain values.

    Args:
        reader: How they are read.
        parts: The parts; files are known by name, size and time of change.
    """
    digest = hashlib.blake2b(digest_size=16)
    files = _by_file(parts)
    for path, own in files.items():
        spans = [parts[place][1:] for place in own]
        digest.update(repr((list(_stamps(path)), own, spans)).encode())
    return {
        **reader.settings(),
        # What can be decoded, and to which pixels, is the decoder's.
        "decoder": av.__version__,
        "files": digest.hexdigest(),
        "parts": len(parts),
    }


def frame_folder(cache: Path, settings: dict[str, Any]) -> Path:
    """Return where the frames made with ``settings`` are, or are to be."""
    return cache / f"frames-{_hash(settings)}"


def write_frames(
    folder: Path,
    reader: FrameReader,
    parts: Sequence[VideoPart],
    settings: dict[str, Any],
    workers: int,
) -> None:
    """Decode all frames of some parts of videos into ``folder``, unless that has been done.

    Each file is decoded once, whatever number of parts it has. Videos that cannot be read are left
    out; the store knows why. A bar on the terminal says how far it is. The folder appears when it
    is complete, not before.

    Args:
        folder: What ``frame_folder`` gave.
        reader: How frames are read.
        parts: What to read.
        settings: What ``frame_settings`` gave.
        workers: How many files are decoded at a time.

    Raises:
        DataError: If the folder cannot be written.
    """
    if folder.is_dir():
        return
    console = Console(stderr=True)
    with (
        appearing(folder) as made,
        Progress(console=console, disable=not console.is_terminal) as progress,
    ):
        made.mkdir()
        files = _by_file(parts)
        bar = progress.add_task("frames", total=len(files))
        stored: dict[int, _StoredPart] = {}
        times: list[float] = []
        offsets = [0]
        with (made / _FRAMES).open("wb") as frames:
            for number, read in enumerate(_read_files(reader, parts, files, made, workers)):
                times += read.times
                offsets.append(len(times))
                if read.times:
                    with read.frames.open("rb") as part:
                        shutil.copyfileobj(part, frames, 1 << 20)
                read.frames.unlink()
                for place, (start, end) in read.spans.items():
                    stored[place] = _StoredPart(number, start, end, None)
                for place, problem in read.problems.items():
                    stored[place] = _StoredPart(number, 0.0, 0.0, problem)
                progress.advance(bar)
        np.save(made / _TIMES, np.asarray(times, dtype=np.float64))
        np.save(made / _OFFSETS, np.asarray(offsets, dtype=np.int64))
        ordered = [stored[place] for place in range(len(parts))]
        (made / _PARTS).write_text(json.dumps(ordered), encoding="utf-8")
        (made / _SETTINGS).write_text(json.dumps(settings), encoding="utf-8")


class _ReadFile(NamedTuple):
    """What was read of a file.

    Attributes:
        frames: A file with the pixels of its frames, end to end.
        times: When they are shown.
        spans: Start and end of each part that could be read, by its place.
        problems: Why a part could not be read, by its place.
    """

    frames: Path
    times: list[float]
    spans: dict[int, tuple[float, float]]
    problems: dict[int, str]


def _read_files(
    reader: FrameReader,
    parts: Sequence[VideoPart],
    files: Mapping[Path, Sequence[int]],
    scratch: Path,
    workers: int,
) -> Iterator[_ReadFile]:
    """Read files at the same time, and yield them in order."""

    def read(number: int, path: Path) -> _ReadFile:
        own = {place: parts[place] for place in files[path]}
        return _read_file(reader, path, own, scratch / f"{number}.part")

    # Threads do: decoding, scaling and writing all let go of the lock of the interpreter.
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(read, range(len(files)), files)
    finally:
        pool.shutdown(cancel_futures=True)


def _read_file(
    reader: FrameReader, path: Path, parts: Mapping[int, VideoPart], to: Path
) -> _ReadFile:
    times: list[float] = []
    spans: dict[int, tuple[float, float]] = {}
    problems: dict[int, str] = {}
    try:
        with to.open("wb") as file, reader.open(path) as video:
            for frame in read_shown(reader, video, list(parts.values())):
                times.append(frame.time_seconds)
                file.write(frame.pixels.numpy().tobytes())
            for place, part in parts.items():
                try:
                    spans[place] = span_of(video, part)
                except DataError as error:
                    problems[place] = _reason(error, path)
            reader.tell_cut(video)
    except DataError as error:
        return _ReadFile(to, [], {}, dict.fromkeys(parts, _reason(error, path)))
    return _ReadFile(to, times, spans, problems)


def _reason(error: DataError, path: Path) -> str:
    """Return the message without the path, under which the file may not be found again."""
    return str(error).removeprefix(f"{path}: ")


def read_shown(reader: FrameReader, video: Video, parts: Sequence[VideoPart]) -> Iterator[Frame]:
    """Yield the frames that parts of an open video show, as the network sees them."""
    prepare = reader.preparation_of(video)
    for frame in _frames_of(video.iter_frames(), parts):
        yield frame._replace(pixels=prepare(frame.pixels))


def _frames_of(frames: Iterator[Frame], parts: Sequence[VideoPart]) -> Iterator[Frame]:
    """Yield the frames that parts show; look no further than the last of them."""
    spans = [(start, math.inf if end is None else end) for _, start, end in parts]
    last = max(end for _, end in spans)
    for frame, following in pairwise(chain(frames, [None])):
        assert frame is not None
        # Until when it is shown; a clip may ask for the one after it a little early.
        until = math.inf if following is None else following.time_seconds
        if any(start < until and frame.time_seconds - EARLY_SECONDS <= end for start, end in spans):
            yield frame
        if until - EARLY_SECONDS > last:
            return


def _by_file(parts: Sequence[VideoPart]) -> dict[Path, list[int]]:
    """Return the files in order, each with the places of its parts."""
    files: dict[Path, list[int]] = defaultdict(list)
    for place, part in enumerate(parts):
        files[part.path].append(place)
    return dict(files)


def _stamps(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, size and time of a file, or of each frame in a folder."""
    try:
        for file in find_frames(path) if path.is_dir() else [path]:
            status = file.stat()
            yield file.name, status.st_size, status.st_mtime_ns
    except (DataError, OSError):  # it will be among the problems
        yield path.name, -1, os.access(path, os.R_OK)


def _hash(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
