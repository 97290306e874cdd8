"""Which files and folders are videos."""

import os
import re
from pathlib import Path

from seq2seq.errors import DataError
from seq2seq.pictures import is_picture_name

ARRAY_SUFFIXES = (".npy", ".npz")
_SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg"),
    *(".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
    *ARRAY_SUFFIXES,
)


def is_video_name(path: Path) -> bool:
    """Return whether a file is a video, going by the ending of its name; a GIF counts as one."""
    return path.suffix.lower() in _SUFFIXES


def is_frame_name(path: Path) -> bool:
    """Return whether a file can be a frame of a folder, going by the ending of its name."""
    return is_picture_name(path) and not is_video_name(path)


def find_videos(folder: Path) -> list[Path]:
    """Return the videos in a folder and the folders below it, sorted, hidden ones left out.

    A folder is a video itself if pictures lie in it and no video lies in it or below it: pictures
    beside or above videos are previews or figures, not frames.

    Raises:
        DataError: If it is not a folder.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder}: {what}. Give a folder of videos.")
    return sorted(_below(folder))


def _below(folder: Path) -> list[Path]:
    found: list[Path] = []
    has_frames = False
    with os.scandir(folder) as entries:  # its entries know what they are: frames are many
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if not (entry.is_symlink() and folder.resolve().is_relative_to(path.resolve())):
                    found += _below(path)
            elif is_video_name(path):
                found.append(path)
            else:
                has_frames = has_frames or is_frame_name(path)
    return [folder] if has_frames and not found else found


def find_frames(folder: Path) -> list[Path]:
    """Return the pictures in a folder in the order of their numbers, hidden ones left out.

    Numbers count by value, so that ``frame2.jpg`` comes before ``frame10.jpg``.

    Raises:
        DataError: If there are none.
    """
    frames = [
        path
        for path in folder.iterdir()
        if is_frame_name(path) and not path.name.startswith(".") and path.is_file()
    ]
    if not frames:
        raise DataError(
            f"{folder}: a folder without pictures is no video. Give the folder that the frames "
            "lie in, or a file."
        )
    return sorted(frames, key=_by_number)


def _by_number(path: Path) -> tuple[list[tuple[str, int]], str]:
    # Text and numbers take turns, so that they are never compared with each other.
    parts = re.split(r"([0-9]+)", path.name)
    texts, numbers = parts[::2], [*map(int, parts[1::2]), 0]
    return list(zip(texts, numbers, strict=True)), path.name
