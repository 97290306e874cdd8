"""A series of numbers, the values that are missing in it, and the scaling that a model reads."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Missing = Literal["error", "interpolate", "keep"]
"""What becomes of values that are missing or infinite."""

# Relative to the mean: a smaller deviation is rounding, and the channel constant.
_SMALLEST_DEVIATION = 1e-12


class Series(NamedTuple):
    """Values of one or more channels at equal steps of time.

    Attributes:
        values: In the units of the data, 0 where missing, float64 ``(time, channels)``.
        is_known: False where a value is missing, bool ``(time, channels)``.
        names: Of the channels; their numbers from 1 where the file has no names.
        times: When each step is, as the file writes it; None where it does not tell.
    """

    values: Tensor
    is_known: Tensor
    names: tuple[str, ...]
    times: tuple[str, ...] | None = None


class SeriesScaling(NamedTuple):
    """What is taken off each channel, and what it is then divided by.

    Attributes:
        mean: Mean of each channel, in its unit, float64 ``(channels,)``.
        std: Standard deviation of each channel, in its unit, above 0, float64 ``(channels,)``.
        names: Of the channels; empty where they have none of their own, as where each column is a
            series.
    """

    mean: Tensor
    std: Tensor
    names: tuple[str, ...] = ()


def no_scaling(channels: int, names: tuple[str, ...] = ()) -> SeriesScaling:
    """Return the scaling that changes nothing."""
    zeros = torch.zeros(channels, dtype=torch.float64)
    return SeriesScaling(zeros, torch.ones_like(zeros), names)


def fit_scaling(values: Tensor, is_known: Tensor, names: tuple[str, ...] = ()) -> SeriesScaling:
    """Return the scaling that gives each channel a mean of 0 and a standard deviation of 1.

    A channel that is constant is only shifted.

    Args:
        values: float64 ``(series, time, channels)``.
        is_known: False where a value does not count, bool ``(series, time, channels)``; every
            channel needs one that does.
        names: Of the channels.
    """
    counts = is_known.sum(dim=(0, 1))
    mean = torch.where(is_known, values, 0.0).sum(dim=(0, 1)) / counts
    squares = torch.where(is_known, values - mean, 0.0).square()
    std = (squares.sum(dim=(0, 1)) / counts).sqrt()
    std = torch.where(std > _SMALLEST_DEVIATION * mean.abs(), std, 1.0)
    return SeriesScaling(mean, std, names)


def interpolate(values: Tensor, is_known: Tensor) -> tuple[Tensor, Tensor]:
    """Fill in what is missing linearly, at the ends with the nearest value.

    Args:
        values: float64 ``(time, channels)``.
        is_known: False where a value is missing, bool ``(time, channels)``.

    Returns:
        Both, filled in. A channel of which nothing is known stays as it is.
    """
    filled, is_filled = values.numpy().copy(), is_known.numpy().copy()
    steps = np.arange(len(filled))
    for channel in np.flatnonzero(is_filled.any(axis=0) & ~is_filled.all(axis=0)):
        known = is_known.numpy()[:, channel]
        filled[:, channel] = np.interp(steps, steps[known], filled[known, channel])
        is_filled[:, channel] = True
    return torch.from_numpy(filled), torch.from_numpy(is_filled)
