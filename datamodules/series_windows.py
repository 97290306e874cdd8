"""Windows of series as examples, and how they become a batch."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import SequenceDataset
from seq2seq.batches import SeriesBatch
from seq2seq.series import interpolate


class WindowExample(NamedTuple):
    """A window of a series, or a chunk of one.

    Attributes:
        values: 0 where missing, float64 ``(time, channels)``.
        is_known: False where a value is missing, bool ``(time, channels)``.
        position: Number of the window in its split.
        warm_up: Number of steps before the forecast that is scored.
        is_continued: Whether it is a chunk that others come before.
    """

    values: Tensor
    is_known: Tensor
    position: int
    warm_up: int
    is_continued: bool


class SeriesWindows(SequenceDataset[WindowExample]):
    """Equally long windows of equally long series.

    What a window has after the end of its series is missing.

    Args:
        values: 0 where missing, float64 ``(series, time, channels)``.
        is_known: False where a value is missing, bool ``(series, time, channels)``.
        places: Number of the series and first step of each window, int64 ``(windows, 2)``.
        steps: Length of a window.
        warm_up: How many of its steps are before the forecast that is scored; None in training,
            where none is.
        chunk_steps: Length of the chunks that windows are cut into, the last may be shorter; None
            to leave them whole. Those of window ``w`` are the indices from ``w * chunks`` on.
        fills_warm_up: Whether missing values of the warm-up are interpolated, from the warm-up
            alone: what comes later is not known when a forecast is made.
    """

    def __init__(
        self,
        values: Tensor,
        is_known: Tensor,
        places: NDArray[np.int64],
        steps: int,
        *,
        warm_up: int | None = None,
        chunk_steps: int | None = None,
        fills_warm_up: bool = False,
    ) -> None:
        super().__init__(seed=0)  # there is nothing random in a window
        self.windows = len(places)
        self.chunk_steps = steps if chunk_steps is None else chunk_steps
        self.chunks = -(-steps // self.chunk_steps)
        self.values = values
        self.is_known = is_known
        self._places = places
        self._steps = steps
        self.warm_up = warm_up
        self._fills_warm_up = fills_warm_up

    def __len__(self) -> int:
        return self.windows * self.chunks

    def has_truth(self) -> bool:
        """Return whether any value after the warm-ups is known: those that forecasts are of."""
        return any(
            bool(self.is_known[number, start + (self.warm_up or 0) : start + self._steps].any())
            for number, start in self._places.tolist()
        )

    def __getitem__(self, index: int) -> WindowExample:
        position, chunk = divmod(index, self.chunks)
        number, start = self._places[position].tolist()
        first = chunk * self.chunk_steps
        steps = slice(start + first, start + min(first + self.chunk_steps, self._steps))
        values = _padded(self.values[number, steps], steps.stop - steps.start)
        is_known = _padded(self.is_known[number, steps], steps.stop - steps.start)
        warm_up = len(values) if self.warm_up is None else self.warm_up
        if self._fills_warm_up:
            filled, is_filled = interpolate(values[:warm_up], is_known[:warm_up])
            values = torch.cat([filled, values[warm_up:]])
            is_known = torch.cat([is_filled, is_known[warm_up:]])
        return WindowExample(values, is_known, position, warm_up, chunk > 0)


def collate(examples: list[WindowExample]) -> SeriesBatch:
    """Return the examples as one batch; all are equally long."""
    return SeriesBatch(
        values=torch.stack([example.values for example in examples]),
        is_known=torch.stack([example.is_known for example in examples]),
        indices=torch.tensor([example.position for example in examples]),
        warm_up=examples[0].warm_up,
        is_continued=examples[0].is_continued,
    )


def _padded(part: Tensor, steps: int) -> Tensor:
    """Return ``steps`` rows: those of ``part``, and zeros."""
    missing = steps - len(part)
    return torch.cat([part, part.new_zeros(missing, part.shape[1])]) if missing else part
