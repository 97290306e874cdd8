"""Pictures of how far back in a sequence gradients reach."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

_NAMES = {"rnn": "tanh RNN", "gru": "GRU", "lstm": "LSTM"}
_COLOURS = {"rnn": "tab:red", "gru": "tab:blue", "lstm": "tab:green"}
_DECADES = 16  # below the largest value, where the scale ends: beyond float32 adds nothing


def gradient_figure(norms: Mapping[str, Tensor], title: str = "") -> Figure:
    """Draw the norm of the gradient by its distance from the end of the sequence.

    Time runs to the right. What is more than 16 decades below the largest value is left out.

    Args:
        norms: For each cell the norm 0, 1, ... steps before the end, ``(time,)``.
        title: What stands above.
    """
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for cell, values in norms.items():
        axes.plot(
            range(len(values)),
            # A zero has no place on a logarithmic scale.
            values.where(values > 0, torch.nan).tolist(),
            color=_COLOURS[cell],
            linewidth=2,
            label=f"{_NAMES[cell]}: first / last {reach(values):.1e}",
        )
    largest = max(float(values.max()) for values in norms.values())
    smallest = min(float(values.min()) for values in norms.values())
    axes.set_yscale("log")
    axes.set_ylim(max(smallest, largest * 10.0**-_DECADES) / 3, largest * 3)
    axes.set_xlim(max(map(len, norms.values())) - 1, 0)
    axes.set_xlabel("steps before the end of the sequence")
    axes.set_ylabel("norm of the gradient by the embedded token")
    # Dollar signs are words here, not formulas.
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def reach(norms: Tensor) -> float:
    """Return the norm at the first step as a share of that at the last one.

    Args:
        norms: 0, 1, ... steps before the end, ``(time,)``.
    """
    return float(norms[-1] / norms[0])
