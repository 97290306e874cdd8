"""What every kind of video offers: its frames one after another, and those of wanted times."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

from seq2seq.errors import DataError

BrokenTail = Literal["error", "cut"]

# Matroska and FLV round time stamps to milliseconds: a frame may be due a little before its own.
EARLY_SECONDS = 1e-3


class Frame(NamedTuple):
    """A frame and when it is shown.

    Attributes:
        time_seconds: Start of its display, counted from that of the first frame.
        pixels: RGB, upright, uint8 ``(3, height, width)``.
    """

    time_seconds: float
    pixels: Tensor


class Pending(NamedTuple):
    """A frame that is converted when it is needed.

    Attributes:
        time_seconds: As in ``Frame``.
        load: Returns the pixels, as in ``Frame``.
    """

    time_seconds: float
    load: Callable[[], Tensor]


class Video(ABC):
    """An open video: a context manager, which closes it. One iterator at a time.

    Attributes:
        path: Where it is.
        broken_seconds: End of the last sound frame, once a read has come upon a broken tail.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken_seconds: float | None = None

    @property
    @abstractmethod
    def duration_seconds(self) -> float:
        """How long it is shown, as its container declares it; a broken tail counts."""

    @abstractmethod
    def _pending(self, start_seconds: float) -> Generator[Pending]:
        """Yield the frames in order, the first one no later than ``start_seconds``.

        Yields at least one; time stamps increase.
        """

    def close(self) -> None:  # noqa: B027  # most kinds hold nothing open
        """Let go of the file; nothing can be read any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def iter_frames(self) -> Iterator[Frame]:
        """Yield all frames in order, in one sequential decode and constant memory.

        Raises:
            DataError: After the last sound frame, if the tail is broken and was not to be cut off;
                in between, if a frame is no picture of eight bits.
        """
        for pending in self._pending(0.0):
            yield Frame(pending.time_seconds, pending.load())

    def read_frames(
        self, times_seconds: Sequence[float], each: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Return the frames that are shown at some times, in one sequential decode.

        The frame at a time is the last one whose time stamp is not later than it (by more than a
        millisecond, to which some containers round). Before the first frame that is the first one,
        after the last frame the last one.

        Args:
            times_seconds: One or more, in any order, from the first frame on.
            each: Applied to every frame as soon as it is decoded, so that no more than one frame
                is held in the size of the file. The results have one shape.

        Returns:
            uint8 ``(time, 3, height, width)``, or the stack of what ``each`` returned.

        Raises:
            DataError: If a time lies in a broken tail that was not to be cut off, a frame cannot be
                read, or the frames differ in size.
        """
        order = sorted(range(len(times_seconds)), key=times_seconds.__getitem__)
        ascending = [times_seconds[index] for index in order]
        frames: list[Tensor] = []
        last: Pending | None = None
        for pending in self._shown_at(ascending):
            if pending is last:
                frames.append(frames[-1])
            else:
                pixels = pending.load()
                frames.append(pixels if each is None else each(pixels))
            last = pending
        shapes = sorted({tuple(frame.shape) for frame in frames})
        if len(shapes) > 1:
            raise DataError(
                f"{self.path}: its frames differ in size ({shapes[0]} and {shapes[-1]}). "
                "Convert them to one size."
            )
        places = sorted(range(len(order)), key=order.__getitem__)
        return torch.stack([frames[place] for place in places])

    def _shown_at(self, ascending_seconds: Sequence[float]) -> Iterator[Pending]:
        with closing(self._pending(ascending_seconds[0])) as frames:
            shown, following = next(frames), None
            for time in ascending_seconds:
                # Looks no further than it has to: what is wrong behind the clip does not matter.
                while shown.time_seconds + EARLY_SECONDS < time:
                    following = following or next(frames, None)
                    if following is None or following.time_seconds - EARLY_SECONDS > time:
                        break
                    shown, following = following, None
                yield shown
