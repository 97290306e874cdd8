"""Pictures of what a classifier confuses."""

from collections.abc import Sequence
from math import ceil

from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

_CELL_INCHES = 0.42  # room for a count of five figures
_SMALLEST_INCHES, _LARGEST_INCHES = 3.0, 16.0  # of the side of the matrix
_BARS_INCHES = 1.7
_SCALE_INCHES = 0.9  # of the colours and their shares
_MOST_COUNTED = 30  # classes whose cells have room for a count
_MOST_NAMED = 100  # classes that have room for a name each
_NAME_LETTERS = 30
_LETTER_INCHES = 0.075
_FONT_SIZE = 8
_GAMMA = 0.5  # below 1, a few confusions among many examples can still be seen
_DARK = 0.3  # the share from which on a cell is too dark for black letters


def confusion_figure(confusion: Tensor, names: Sequence[str], title: str = "") -> Figure:
    """Draw which class was taken for which: a row per true class, a column per predicted one.

    The darker a cell, the larger its share of its row, by the scale beside; up to 30 classes have
    their counts written in, but for zeros. Bars beside the rows show the accuracy on each class.
    Of more than 100 classes not all are named.

    Args:
        confusion: Number of examples by true (row) and predicted class, int64
            ``(classes, classes)``.
        names: Name of each class.
        title: What stands above.
    """
    counts = confusion.cpu().double()
    # A class without examples has an empty row.
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    shown = [_shorten(name) for name in names]
    side = min(max(_CELL_INCHES * len(shown), _SMALLEST_INCHES), _LARGEST_INCHES)
    margin = 0.5 + _LETTER_INCHES * max(map(len, shown))
    figure = Figure(
        figsize=(margin + side + _BARS_INCHES + _SCALE_INCHES, margin + side),
        layout="constrained",
    )
    matrix, bars = figure.subplots(1, 2, sharey=True, width_ratios=[side, _BARS_INCHES])
    # Dollar signs are words here, not formulas.
    figure.suptitle(title, parse_math=False)
    # A class may have a name that is too wide for its column.
    is_turned = max(map(len, shown)) * _LETTER_INCHES > side / len(shown)
    image = _draw_matrix(matrix, shares, shown, 90 if is_turned else 0)
    figure.colorbar(image, ax=[matrix, bars], label="share of the true class", aspect=30, pad=0.02)
    if len(shown) <= _MOST_COUNTED:
        _write_counts(matrix, confusion, shares)
    _draw_accuracy(bars, shares.diag(), counts.sum(dim=1))
    return figure


def _draw_matrix(axes: Axes, shares: Tensor, names: Sequence[str], rotation: int) -> AxesImage:
    norm = PowerNorm(_GAMMA, vmin=0, vmax=1)
    image = axes.imshow(shares.numpy(), cmap="Blues", norm=norm, aspect="auto")
    named = range(0, len(names), ceil(len(names) / _MOST_NAMED))
    labels = [names[i] for i in named]
    axes.set_xticks(named, labels, rotation=rotation, fontsize=_FONT_SIZE, parse_math=False)
    axes.set_yticks(named, labels, fontsize=_FONT_SIZE, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    return image


def _write_counts(axes: Axes, confusion: Tensor, shares: Tensor) -> None:
    for row, column in confusion.nonzero().tolist():
        axes.text(
            column,
            row,
            str(int(confusion[row, column])),
            ha="center",
            va="center",
            fontsize=_FONT_SIZE,
            color="white" if shares[row, column] > _DARK else "black",
        )


def _draw_accuracy(axes: Axes, accuracy: Tensor, totals: Tensor) -> None:
    classes = range(len(accuracy))
    axes.barh(classes, accuracy.tolist(), height=0.8, color="lightsteelblue")
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1])
    axes.set_xlabel("accuracy on the class")
    axes.tick_params(axis="y", left=False, labelleft=False)
    if len(accuracy) <= _MOST_COUNTED:
        for row in classes:
            text = f"{accuracy[row]:.2f} of {int(totals[row])}" if totals[row] else "no example"
            axes.text(0.03, row, text, va="center", fontsize=_FONT_SIZE)


def _shorten(name: str) -> str:
    return name if len(name) <= _NAME_LETTERS else name[: _NAME_LETTERS - 1] + "\u2026"
