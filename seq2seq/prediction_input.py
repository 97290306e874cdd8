"""What ``seq2seq-predict`` reads: lines of text, or the paths of files."""

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

from seq2seq.errors import DataError
from seq2seq.pictures import find_pictures, is_picture_name
from seq2seq.tasks.base import ItemKind
from seq2seq.videos import find_videos, is_video_name


class FileKind(NamedTuple):
    """Files that are inputs.

    Attributes:
        is_name: Whether a file is one of them, going by its name.
        find: Returns those in a folder and the folders below it, sorted.
    """

    is_name: Callable[[Path], bool]
    find: Callable[[Path], list[Path]]


FILE_KINDS: dict[ItemKind, FileKind] = {
    "picture": FileKind(is_picture_name, find_pictures),
    "video": FileKind(is_video_name, find_videos),
}


def open_items(source: str, kind: ItemKind, stack: ExitStack) -> Iterator[str]:
    """Return the raw inputs that ``--input`` stands for.

    Args:
        source: A file, ``-`` for standard input, and where the inputs are files also a folder or a
            list of paths.
        kind: What the inputs are.
        stack: What closes the file in the end.

    Raises:
        DataError: If there is no such input, or it is of another kind.
    """
    path = Path(source)
    if source == "-":
        # Not sys.stdin.buffer: Python closes that when it ends, and aborts if the thread that reads
        # ahead is still waiting in it.
        stream: BinaryIO = os.fdopen(sys.stdin.fileno(), "rb", closefd=False)
        lines = read_lines(stream, "standard input")
        return lines if kind == "line" else filter(str.strip, lines)
    if kind != "line":
        return iter(_find_items(path, kind))
    if path.is_dir():
        raise DataError(f"{path}: is a folder, and this checkpoint reads text. Give a text file.")
    stream = stack.enter_context(_open(path))
    for other, files in FILE_KINDS.items():
        if files.is_name(path):
            raise DataError(
                f"{path}: is a {other} by its name, and this checkpoint reads text. Give a text "
                f"file, or the checkpoint of a task for {other}s."
            )
    return read_lines(stream, source)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error


def _find_items(path: Path, kind: ItemKind) -> list[str]:
    """Return the files that a path stands for: itself, those below a folder, or those of a list."""
    files = FILE_KINDS[kind]
    if path.is_dir():
        # Also a video that is a folder of frames is found in itself.
        found = [str(item) for item in files.find(path)]
        if not found:
            raise DataError(
                f"{path}: there is no {kind} in this folder or below it. Give another folder, a "
                f"{kind}, or a list of paths."
            )
        return found
    with _open(path) as stream:
        return [str(path)] if files.is_name(path) else _read_list(stream, path, kind)


def _read_list(stream: BinaryIO, path: Path, kind: ItemKind) -> list[str]:
    remedy = f"Give a {kind}, a folder, or a text file with the path of a {kind} on each line."
    try:
        names = [line for line in read_lines(stream, str(path)) if line.strip()]
    except DataError as error:
        raise DataError(
            f"{path}: is no {kind} by its name, and no list of paths, as it is not UTF-8. {remedy}"
        ) from error
    found = [_locate(name, path.parent) for name in names]
    is_name = FILE_KINDS[kind].is_name
    if found and not any(is_name(Path(name)) or _is_there(Path(name)) for name in found):
        raise DataError(
            f"{path}: is no {kind} by its name, and no list of paths: none of its lines, such as "
            f"{names[0][:60]!r}, is the path of a file. {remedy}"
        )
    return found


def _locate(name: str, folder: Path) -> str:
    """Return a path of a list: below the list's folder, unless it is the working directory's."""
    beside = folder / name
    return name if not _is_there(beside) and _is_there(Path(name)) else str(beside)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a sentence that is too long for a name
        return False


def read_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """Yield the lines of a stream as they come.

    Raises:
        DataError: If a line is not UTF-8, naming it.
    """
    for number, line in enumerate(iter(stream.readline, b""), start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}:{number}: is not UTF-8 (byte {error.start + 1} of the line). "
                "Convert the file, for example with iconv."
            ) from error


def ready_chunks(items: Iterator[str], size: int) -> Iterator[list[str]]:
    """Yield the inputs that are there, at least one and at most ``size``, without waiting for more.

    So a person at a terminal gets an answer per line, and a pipe full batches.
    """
    waiting: queue.Queue[str | BaseException | None] = queue.Queue(maxsize=2 * size)

    def read() -> None:
        try:
            for item in items:
                waiting.put(item)
            waiting.put(None)
        except BaseException as error:  # carried over to the thread that consumes
            waiting.put(error)

    threading.Thread(target=read, daemon=True).start()
    chunk: list[str] = []
    while True:
        item = waiting.get()
        if isinstance(item, str):
            chunk.append(item)
        if chunk and (not isinstance(item, str) or len(chunk) == size or waiting.empty()):
            yield chunk
            chunk = []
        if isinstance(item, BaseException):
            raise item
        if item is None:
            return
