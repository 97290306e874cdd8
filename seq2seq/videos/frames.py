"""What a network sees of a video: frames of one size, in clips or all of them."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from seq2seq.errors import ConfigError, DataError
from seq2seq.pictures import Box, PictureGeometry
from seq2seq.videos.base import BrokenTail, Video
from seq2seq.videos.files import open_video

_log = logging.getLogger(__name__)

# Shares of red, green and blue in brightness (ITU-R BT.601), and what rounds, in units of 2 ** -16:
# the numbers of Pillow.
_LUMA = torch.tensor([19595, 38470, 7471], dtype=torch.int32).view(3, 1, 1)
_LUMA_HALF = 1 << 15

PrepareFrame = Callable[[Tensor], Tensor]
"""Makes what the network sees, uint8 ``(channels, size, size)``, of RGB pixels."""

SampleTimes = Callable[[float, float], list[list[float]]]
"""Gives the times of clips, equally many in each, between a start and an end, seconds. For the same
start and end it gives the same times."""


@dataclass(frozen=True)
class FramePreparation:
    """How a frame of any size becomes what the network sees.

    Args:
        geometry: How it becomes a square.
        channels: 3 for colour, 1 for grey.

    Raises:
        ConfigError: If there is no such number of channels.
    """

    geometry: PictureGeometry
    channels: int = 3

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ConfigError(
                f"--model.image_channels={self.channels} cannot be: choose 3 for colour, 1 for "
                "grey."
            )

    def __call__(self, pixels: Tensor, box: Box | None = None) -> Tensor:
        """Return what becomes of an RGB frame.

        Args:
            pixels: uint8 ``(3, height, width)``.
            box: Of ``foreground``, what the square shows; null to look for it in this frame.

        Returns:
            uint8 ``(channels, size, size)``.
        """
        square = self.geometry(_to_picture(pixels), box)
        return square if self.channels == 3 else _to_grey(square)

    def of_video(self, first: Tensor) -> PrepareFrame:
        """Return what all frames of a video go through.

        Of ``foreground``, all show what the first one shows, so that what moves is seen to move.

        Args:
            first: The first frame, RGB, uint8 ``(3, height, width)``.
        """
        if self.geometry.resize != "foreground":
            return self
        return partial(self, box=self.geometry.foreground(_to_picture(first)))

    def settings(self) -> dict[str, int | float | str]:
        """Return the options as plain values."""
        return {**self.geometry.settings(), "channels": self.channels}


def _to_picture(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _to_grey(square: Tensor) -> Tensor:
    """Return the brightness of RGB pixels as Pillow's mode ``L`` has it, to the last bit."""
    weighted = (square.int() * _LUMA).sum(dim=0, keepdim=True)
    return ((weighted + _LUMA_HALF) >> 16).to(torch.uint8)


class VideoPart(NamedTuple):
    """A video, or a part of one.

    Attributes:
        path: A file, or a folder of frames.
        start_seconds: Start of the part.
        end_seconds: Its end; None for that of the video.
    """

    path: Path
    start_seconds: float = 0.0
    end_seconds: float | None = None


@dataclass(frozen=True)
class FrameReader:
    """Reads frames as the network sees them.

    Args:
        preparation: What becomes of a frame.
        stills_rate_hz: Frame rate of folders and arrays, which do not tell it.
        threads: How many decode one file.
        broken_tail: Whether a broken tail is an error, or is cut off.
        on_cut: Told the path of a video that was read and cut off, and where it ends, seconds; None
            to tell nobody.
    """

    preparation: FramePreparation
    stills_rate_hz: float = 25.0
    threads: int = 1
    broken_tail: BrokenTail = "error"
    on_cut: Callable[[Path, float], None] | None = None

    def open(self, path: Path) -> Video:
        """Open a video; use the result in a ``with`` statement.

        Raises:
            DataError: If it is not a video, or no frame of it can be decoded.
        """
        return open_video(
            path,
            frame_rate_hz=self.stills_rate_hz,
            threads=self.threads,
            broken_tail=self.broken_tail,
        )

    def read_clips(self, part: VideoPart, sample: SampleTimes) -> Tensor:
        """Return clips of a part of a video, in one sequential decode.

        Where a broken tail is cut off and a clip reaches into it, all clips are sampled once more,
        from what comes before.

        Args:
            part: Where they are taken from; its end may lie beyond that of the video.
            sample: Gives their times.

        Returns:
            uint8 ``(clips, time, channels, size, size)``.

        Raises:
            DataError: If the video cannot be read, or ends before the part begins.
        """
        with self.open(part.path) as video:
            prepare = self.preparation_of(video)
            clips = sample(*span_of(video, part))
            frames = _read(video, clips, prepare)
            if video.broken_seconds is not None and video.broken_seconds < max(map(max, clips)):
                clips = sample(*span_of(video, part))
                frames = _read(video, clips, prepare)
            self.tell_cut(video)
        return frames.view(len(clips), -1, *frames.shape[1:])

    def preparation_of(self, video: Video) -> PrepareFrame:
        """Return what the frames of an open video go through.

        Raises:
            DataError: If its first frame is to be looked at, and cannot be read.
        """
        if self.preparation.geometry.resize != "foreground":
            return self.preparation  # without a look at the first frame
        return self.preparation.of_video(video.read_frames([0.0])[0])

    def tell_cut(self, video: Video) -> None:
        """Tell of a video that has been read if a broken tail was cut off."""
        if video.broken_seconds is not None and self.on_cut is not None:
            self.on_cut(video.path, video.broken_seconds)

    def settings(self) -> dict[str, Any]:
        """Return what the frames of a file depend on, in plain values."""
        return {
            **self.preparation.settings(),
            "stills_rate_hz": self.stills_rate_hz,
            "broken_tail": self.broken_tail,
        }


def _read(video: Video, clips: list[list[float]], prepare: PrepareFrame) -> Tensor:
    return video.read_frames([time for clip in clips for time in clip], prepare)


def span_of(video: Video, part: VideoPart) -> tuple[float, float]:
    """Return the start and the end of what there is of a part, seconds.

    Args:
        video: The open video; if a broken tail was come upon, it ends there.
        part: The part of it.

    Raises:
        DataError: If the video ends before the part begins.
    """
    end = video.duration_seconds if video.broken_seconds is None else video.broken_seconds
    if 0 < part.start_seconds >= end:
        raise DataError(
            f"{part.path}: the part from {part.start_seconds:g} s on begins after the end of the "
            f"video, {end:.2f} s. Mend its start, or leave it out."
        )
    return part.start_seconds, min(end, math.inf if part.end_seconds is None else part.end_seconds)


class CutWarnings:
    """Warns of videos whose broken tail is cut off: of each once, in every process that reads it.

    It is what a ``FrameReader`` has as ``on_cut``.
    """

    def __init__(self) -> None:
        self._told: set[Path] = set()

    def __call__(self, path: Path, seconds: float) -> None:
        """Warn of a video that is cut off at a time, unless that has been done."""
        if path not in self._told:
            self._told.add(path)
            _log.warning("%s: breaks off at %.2f s; only the part before is used.", path, seconds)
