"""Videos without time stamps: folders of pictures, and arrays."""

import math
from abc import abstractmethod
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2seq.errors import DataError
from seq2seq.pictures import open_picture
from seq2seq.saved_arrays import parse_array
from seq2seq.videos.base import EARLY_SECONDS, Pending, Video
from seq2seq.videos.find import find_frames

_NPZ_NAME = "frames"
_ZIP = b"PK"


class _Stills(Video):
    """Frames of which each can be read by itself, at a steady rate.

    Args:
        path: Where they are.
        count: Number of frames.
        frame_rate_hz: Frames per second.
    """

    def __init__(self, path: Path, count: int, frame_rate_hz: float) -> None:
        super().__init__(path)
        self._count = count
        self._frame_rate_hz = frame_rate_hz

    @property
    def duration_seconds(self) -> float:
        """The number of frames divided by their rate."""
        return self._count / self._frame_rate_hz

    def _pending(self, start_seconds: float) -> Generator[Pending]:
        first = math.floor((start_seconds + EARLY_SECONDS) * self._frame_rate_hz)
        for index in range(min(max(first, 0), self._count - 1), self._count):
            yield Pending(index / self._frame_rate_hz, partial(self._load, index))

    @abstractmethod
    def _load(self, index: int) -> Tensor:
        """Return the pixels of a frame, as in ``Frame``."""


class FolderVideo(_Stills):
    """The pictures in a folder, in the order of their numbers.

    Args:
        path: The folder.
        frame_rate_hz: Frames per second.

    Raises:
        DataError: If there are no pictures.
    """

    def __init__(self, path: Path, frame_rate_hz: float) -> None:
        self._frames = find_frames(path)
        super().__init__(path, len(self._frames), frame_rate_hz)

    def _load(self, index: int) -> Tensor:
        picture = np.array(open_picture(self._frames[index], scaled_as=self._frames[0]))
        return torch.from_numpy(picture).permute(2, 0, 1).contiguous()


class ArrayVideo(_Stills):
    """A saved array; ``.npy`` is read frame by frame, ``.npz`` as a whole.

    Args:
        path: The file.
        frame_rate_hz: Frames per second.

    Raises:
        DataError: If it is not an array, or its shape or type is another.
    """

    def __init__(self, path: Path, frame_rate_hz: float) -> None:
        self._array = _read_array(path)
        _check_array(path, self._array)
        super().__init__(path, len(self._array), frame_rate_hz)

    def _load(self, index: int) -> Tensor:
        frame = np.atleast_3d(self._array[index])
        if frame.dtype.kind == "f":
            if not (frame.min() >= 0 and frame.max() <= 1):  # nor is NaN
                raise DataError(
                    f"{self.path}: frame {index} has values from {frame.min():g} to "
                    f"{frame.max():g}, where floats go from 0 to 1. Scale it, or save it as uint8."
                )
            frame = np.rint(frame * 255)
        elif frame.dtype.kind == "b":
            frame = frame * np.uint8(255)
        # The copy is ours, and not the file mapped into memory.
        pixels = torch.from_numpy(np.array(frame, dtype=np.uint8)).permute(2, 0, 1)
        return pixels.expand(3, -1, -1).contiguous()


def _read_array(path: Path) -> NDArray[Any]:
    array: NDArray[Any]
    try:
        with path.open("rb") as stream:  # of a damaged archive, NumPy would leave it open
            if stream.read(len(_ZIP)) != _ZIP:
                array = parse_array(lambda: np.load(path, mmap_mode="r", allow_pickle=False))
                return array
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as content:
                names = content.files
                name = names[0] if len(names) == 1 else _NPZ_NAME
                if name in names:
                    array = parse_array(lambda: content[name])
                    return array
    except Exception as error:  # on a damaged file, NumPy raises what its parts happen to raise
        raise DataError(
            f"{path}: cannot be read as an array ({error}). Save it again with numpy.save, as a "
            "uint8 array (time, height, width[, channels])."
        ) from error
    listed = ", ".join(names) or "none"
    raise DataError(
        f"{path}: which array is the video cannot be told; it has {listed}. Save one array, or "
        f"name it {_NPZ_NAME!r}."
    )


def _check_array(path: Path, array: NDArray[Any]) -> None:
    shape = array.shape
    if array.dtype != np.uint8 and array.dtype.kind not in "bf":
        raise DataError(
            f"{path}: an array of {array.dtype}, where uint8, bool, or floats from 0 to 1 are "
            "needed. Scale it to one of them."
        )
    if len(shape) not in (3, 4) or shape[3:] not in ((), (1,), (3,)):
        raise DataError(
            f"{path}: an array of shape {shape}, where (time, height, width) is needed, or the "
            "same with 1 or 3 channels at the end. Transpose it."
        )
    if 0 in shape:
        raise DataError(f"{path}: an array of shape {shape} has no pixels. Leave it out.")
