"""Pictures of forecasts."""

from collections.abc import Sequence
from math import ceil

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from seq2seq.batches import Forecast

BAND_DEVIATIONS = 1.645
"""How many standard deviations a band of 90 % goes to either side, in a Gaussian."""

_WIDTH_INCHES = 12.0
_PANEL_INCHES, _ERROR_INCHES, _MARGIN_INCHES = 2.8, 1.3, 0.9
_MOST_CHANNELS = 6  # that have a panel
_SHOWN_HORIZONS, _SHOWN_STEPS = 2, 100  # of what was read: the longer of them
_TICKS = 8
_TRUTH, _ONE_STEP, _FREE = "0.35", "#e69f00", "#0072b2"  # which the colour-blind tell apart
_Values = NDArray[np.float64]


def forecast_figure(
    values: Tensor,
    is_known: Tensor,
    forecast: Forecast,
    *,
    start: int,
    names: Sequence[str] = (),
    times: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Draw a series, its prediction one step ahead and its forecast: a panel for each channel.

    Where the truth of the forecast is known, a smaller panel shows both errors. Of a long past only
    the end is shown, and of many channels the first six.

    Args:
        values: The steps that were read, and those that were forecast if they are known, ``(time,
            channels)``.
        is_known: False where a value is missing, bool ``(time, channels)``.
        forecast: Of this series, a batch of one; ``one_step`` may go on beyond ``start``.
        start: Number of steps that were read.
        names: Of the channels; empty where they have none.
        times: When each step was or will be, as many as are read and forecast; counted when None.
        title: What stands above.
    """
    horizon, channels = forecast.values.shape[1:]
    shown = min(channels, _MOST_CHANNELS)
    first = max(0, start - max(_SHOWN_HORIZONS * horizon, _SHOWN_STEPS))
    has_errors = len(values) > start
    heights = [_PANEL_INCHES, _ERROR_INCHES] if has_errors else [_PANEL_INCHES]
    figure = Figure(
        figsize=(_WIDTH_INCHES, shown * sum(heights) + _MARGIN_INCHES), layout="constrained"
    )
    # Dollar signs are words here, not formulas.
    figure.suptitle(title, parse_math=False)
    panels = figure.subplots(
        shown * len(heights), 1, sharex=True, squeeze=False, height_ratios=heights * shown
    )[:, 0]
    truth = _array(values.masked_fill(~is_known, torch.nan))
    free, one_step = _array(forecast.values[0]), _array(forecast.one_step[0])
    deviation = None if forecast.deviation is None else _array(forecast.deviation[0])
    for channel in range(shown):
        panel = panels[channel * len(heights)]
        name = names[channel] if names else ("value" if channels == 1 else f"channel {channel + 1}")
        panel.set_ylabel(name, parse_math=False)
        _line(panel, truth[:, channel], first, 0, _TRUTH, "truth" if has_errors else "series", 2.5)
        _line(panel, one_step[:, channel], first, 0, _ONE_STEP, "one step ahead", 1.0)
        _line(panel, free[:, channel], 0, start, _FREE, "running free", 1.5)
        if deviation is not None:
            reach = BAND_DEVIATIONS * deviation[:, channel]
            steps = np.arange(start, start + horizon)
            low, high = free[:, channel] - reach, free[:, channel] + reach
            panel.fill_between(
                steps, low, high, color=_FREE, alpha=0.2, lw=0, label="90 % of futures"
            )
        _frame(panel, start)
        if has_errors:
            errors = panels[channel * len(heights) + 1]
            errors.set_ylabel("error")
            known = truth[: len(one_step), channel]
            end = min(len(truth) - start, horizon)
            _line(errors, one_step[: len(known), channel] - known, first, 0, _ONE_STEP, "", 1.0)
            difference = free[:end, channel] - truth[start : start + end, channel]
            _line(errors, difference, 0, start, _FREE, "", 1.5)
            errors.axhline(0, color=_TRUTH, lw=0.8)
            _frame(errors, start)
    panels[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False)
    _label_steps(panels[-1], times)
    return figure


def _array(values: Tensor) -> _Values:
    found: _Values = values.detach().cpu().double().numpy()
    return found


def _line(
    axes: Axes, values: _Values, first: int, offset: int, color: str, label: str, width: float
) -> None:
    """Draw values from the ``first`` on, the very first of which is at step ``offset``."""
    steps = np.arange(first, len(values)) + offset
    # A single value has no line.
    marker = "." if len(steps) == 1 else None
    axes.plot(steps, values[first:], color=color, lw=width, label=label, marker=marker)


def _frame(axes: Axes, start: int) -> None:
    axes.axvline(start - 0.5, color=_TRUTH, lw=1, ls=":")
    axes.margins(x=0)
    axes.grid(alpha=0.25)


def _label_steps(axes: Axes, times: Sequence[str] | None) -> None:
    if times is None:
        axes.set_xlabel("step")
        return
    low, high = axes.get_xlim()
    first, last = max(0, ceil(low)), min(len(times) - 1, int(high))
    ticks = range(first, last + 1, max(1, ceil((last + 1 - first) / _TICKS)))
    axes.set_xticks(ticks, [times[tick] for tick in ticks], parse_math=False)
