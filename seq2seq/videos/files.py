"""Opens a video of any kind."""

import math
from pathlib import Path

from seq2seq.errors import ConfigError, DataError
from seq2seq.videos.base import BrokenTail, Video
from seq2seq.videos.container import ContainerVideo
from seq2seq.videos.find import ARRAY_SUFFIXES
from seq2seq.videos.stills import ArrayVideo, FolderVideo


def open_video(
    path: Path,
    *,
    frame_rate_hz: float = 25.0,
    threads: int = 1,
    broken_tail: BrokenTail = "error",
) -> Video:
    """Open a video; use the result in a ``with`` statement.

    Args:
        path: A video file, whose content decides and not its name; a folder of pictures, in the
            order of the numbers in their names; or an array, ``.npy`` or ``.npz`` (its only array,
            or the one named ``frames``): ``(time, height, width)`` or with one or three channels
            last, uint8, bool, or floats from 0 to 1.
        frame_rate_hz: Of a folder or an array, which do not tell it; files have time stamps.
        threads: How many decode one file; loader workers are parallel already.
        broken_tail: What a file does that ends too early, or cannot be decoded from some point on.
            ``error`` raises a ``DataError`` with that point when a read comes upon it, and not
            before: clips that end earlier are read. ``cut`` ends the video there, and sets
            ``broken_seconds``. A damaged spot that sound frames follow is no tail: the frame before
            it stays. What is missing of MPEG streams, which declare no length, cannot be told.

    Returns:
        The open video; its first frame could be decoded.

    Raises:
        ConfigError: If an option is out of range.
        DataError: If there is no such file, or it is not a video: empty, text, a still picture,
            audio only, a folder without pictures, an array of another shape or type; or if no
            frame can be decoded.
    """
    if not 0 < frame_rate_hz < math.inf:
        raise ConfigError(
            f"frame_rate_hz={frame_rate_hz} is no rate: choose more than 0 frames per second."
        )
    if threads < 1:
        raise ConfigError(f"threads={threads} is too small: choose 1 or more.")
    try:
        if path.is_dir():
            return FolderVideo(path, frame_rate_hz)
        is_there = path.exists()
    except OSError as error:  # a name that is too long, a folder that must not be read
        raise DataError(f"{path}: {error.strerror}. Give the path of a video.") from error
    if not is_there:
        raise DataError(f"{path}: does not exist. Give the path of a video.")
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return ArrayVideo(path, frame_rate_hz)
    return ContainerVideo(path, threads, broken_tail)
