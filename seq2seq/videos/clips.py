"""Which frames of a video make a clip: the times at which it is looked at."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import torch

from seq2seq.errors import ConfigError, raise_together

Sampling = Literal["uniform", "dense", "segment"]


@dataclass(frozen=True)
class ClipSampling:
    """How clips are taken from a video, or from a part of one, by time stamps.

    A clip is cut into as many equal segments as it has frames, and shows what is in the middle of
    each; so every time is between the two ends, where the frame next to it is not a matter of
    rounding.

    Args:
        sampling: ``uniform`` spreads a clip over the whole video. ``segment`` does, too, and looks
            at a random time of each segment in training (temporal segment networks,
            arXiv:1608.00859, section 3.1). ``dense`` takes frames at a steady rate: from a random
            start in training; in evaluation, clips start at equal distances, the first with the
            video, and the last ends with it; a single one is in the middle.
        clip_frames: Frames per clip.
        frame_rate_hz: Of ``dense``, frames per second; the others do not use it. Where a video is
            shorter than a clip, its last frame is held.
        clips: Clips per video in evaluation. Of ``uniform`` and ``segment``, they take turns:
            together they are the uniform clip of as many frames as all of them have.
        span_share: Of ``segment``, the smallest share of the video that a training clip is spread
            over, a random part of a random length: people start sooner or later, and take their
            time; 1 for the whole.

    Raises:
        ConfigError: If an option is out of range; all problems together.
    """

    sampling: Sampling = "uniform"
    clip_frames: int = 16
    frame_rate_hz: float = 15.0
    clips: int = 1
    span_share: float = 1.0

    def __post_init__(self) -> None:
        raise_together(list(self._problems()), ConfigError, "The clip options cannot work:")

    def training_times(
        self, start_seconds: float, end_seconds: float, generator: torch.Generator | None = None
    ) -> list[float]:
        """Return the times of one clip; random, except for ``uniform``.

        Args:
            start_seconds: Start of the part of the video that clips are taken from.
            end_seconds: Its end.
            generator: Of the random choice; None for the global one.

        Returns:
            Times in seconds, ascending, one for each frame.
        """
        if self.sampling == "dense":
            shift = torch.rand((), generator=generator).item()
            return self._dense(start_seconds, end_seconds, shift)
        if self.sampling == "segment":
            length, offset, *places = torch.rand(self.clip_frames + 2, generator=generator).tolist()
            span = (end_seconds - start_seconds) * (1 - length * (1 - self.span_share))
            first = start_seconds + offset * (end_seconds - start_seconds - span)
            return self._spread(first, first + span, places)
        return self._spread(start_seconds, end_seconds, [0.5] * self.clip_frames)

    def evaluation_times(self, start_seconds: float, end_seconds: float) -> list[list[float]]:
        """Return the times of all clips.

        Args:
            start_seconds: Start of the part of the video that clips are taken from.
            end_seconds: Its end.

        Returns:
            Times in seconds, ascending in each clip; ``clips`` lists of ``clip_frames``.
        """
        if self.sampling == "dense":
            shifts = [0.5] if self.clips == 1 else [n / (self.clips - 1) for n in range(self.clips)]
            return [self._dense(start_seconds, end_seconds, shift) for shift in shifts]
        places = [(number + 0.5) / self.clips for number in range(self.clips)]
        return [
            self._spread(start_seconds, end_seconds, [place] * self.clip_frames) for place in places
        ]

    def settings(self) -> dict[str, int | float | str]:
        """Return the options as plain values, from which an equal object can be made."""
        return asdict(self)

    def _spread(self, start: float, end: float, places: list[float]) -> list[float]:
        """Return one time in each segment of the whole; a place is 0 at its start, 1 at its end."""
        segment = (end - start) / self.clip_frames
        return [start + (number + place) * segment for number, place in enumerate(places)]

    def _dense(self, start: float, end: float, shift: float) -> list[float]:
        """Return times at a steady rate; a shift of 0 starts with the video, of 1 ends with it."""
        first = start + shift * max(0.0, end - start - self.clip_frames / self.frame_rate_hz)
        # A time at the end or after it would show what follows a part, or nothing.
        within = math.ceil((end - first) * self.frame_rate_hz - 0.5) - 1
        if within < 0:  # not even half an interval long
            return [(start + end) / 2] * self.clip_frames
        return [
            first + (min(number, within) + 0.5) / self.frame_rate_hz
            for number in range(self.clip_frames)
        ]

    def _problems(self) -> Iterator[str]:
        if self.sampling not in get_args(Sampling):
            choices = ", ".join(get_args(Sampling))
            yield f"--model.sampling={self.sampling!r} is unknown; choose one of {choices}."
        if self.clip_frames < 1:
            yield f"--model.clip_frames={self.clip_frames} is too small: choose 1 or more."
        if not 0 < self.frame_rate_hz < math.inf:
            yield (
                f"--model.frame_rate_hz={self.frame_rate_hz} is no rate: choose more than 0 "
                "frames per second."
            )
        if not 0 < self.span_share <= 1:
            yield (
                f"--model.span_share={self.span_share} is no share of a video: choose more than 0, "
                "and 1 for the whole."
            )
        if self.clips < 1:
            yield f"--model.clips={self.clips} is too small: choose 1 or more."
