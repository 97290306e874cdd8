"""Pictures of what a decoder attended to."""

import textwrap
from math import ceil

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate

from seq2seq.batches import Prediction

END_OF_SEQUENCE = "</s>"
"""How the vocabularies spell it."""

_LARGEST_INCHES = 100.0  # beyond 65536 pixels matplotlib refuses
_WORD_START = "\u2581"  # SentencePiece's mark
_PANELS_PER_ROW = 5
_PANEL_INCHES = 2.0
_TITLE_INCHES = 0.3
_CAPTION_LETTERS = 84  # that fit above a full row
_UNATTENDED = 0.25  # how much of its brightness a place without attention keeps
_GLOW = 0.35  # how far the place of most attention goes towards white: it may be black


def attention_figure(prediction: Prediction) -> Figure:
    """Draw the attention of a prediction: a row per target token, a column per source token."""
    assert prediction.attention is not None
    assert prediction.source_tokens is not None
    rows, columns = prediction.attention.shape
    width, height = 2 + 0.35 * columns, 1.5 + 0.3 * rows
    figure = Figure(
        figsize=(min(width, _LARGEST_INCHES), min(height, _LARGEST_INCHES)), layout="constrained"
    )
    axes = figure.subplots()
    weights = prediction.attention.cpu().float().numpy()  # matplotlib warns of tensors
    axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    # Dollar signs are words here, not formulas.
    axes.set_xticks(
        range(columns), prediction.source_tokens, rotation=60, ha="right", parse_math=False
    )
    axes.set_yticks(range(rows), prediction.tokens[:rows], parse_math=False)
    axes.set_xlabel("source")
    axes.set_ylabel("decoded")
    return figure


def overlay_figure(picture: Tensor, prediction: Prediction) -> Figure:
    """Draw a picture with its caption, and then for each token where in it the decoder looked.

    The brighter, the more attention: each panel is scaled by the largest weight in it, so panels
    show places and do not compare tokens. The end of sequence has no panel.

    Args:
        picture: Pixels, uint8 ``(3, height, width)``.
        prediction: What was decoded from it, with its attention over a grid of cells that covers
            the picture.

    Source: Xu et al. 2015, arXiv:1502.03044, figure 3.
    """
    assert prediction.attention is not None
    assert prediction.grid is not None
    pixels = picture.cpu().float() / 255
    tokens = prediction.tokens
    if tokens[-1:] == [END_OF_SEQUENCE]:
        tokens = tokens[:-1]
    weights = prediction.attention[: len(tokens)].cpu().float()
    grids = weights.view(len(tokens), *prediction.grid)
    figure, panels = _panels(1 + len(tokens), pixels.shape[-2] / pixels.shape[-1], prediction.text)
    _draw(panels[0], pixels, "")
    for panel, token, grid in zip(panels[1:], tokens, grids, strict=True):
        attended = _enlarge(grid, picture)
        light = _UNATTENDED + (1 - _UNATTENDED - _GLOW) * attended
        _draw(panel, pixels * light + _GLOW * attended, token.replace(_WORD_START, " ").strip())
    return figure


def _enlarge(grid: Tensor, picture: Tensor) -> Tensor:
    """Return the weights ``(rows, columns)`` of cells as ``(height, width)``, from 0 to 1."""
    size = picture.shape[-2:]
    smooth = interpolate(grid[None, None], size, mode="bicubic")[0, 0].clamp(min=0)
    return smooth / smooth.max().clamp(min=1e-9)


def _panels(count: int, height_share: float, caption: str) -> tuple[Figure, list[Axes]]:
    """Return a figure below a caption, and its panels, row by row.

    Args:
        count: Number of panels.
        height_share: Height of a panel's picture as a share of its width.
        caption: What stands above them all.
    """
    # Laid out by hand: matplotlib's own layouts take longer than all the drawing.
    rows = ceil(count / _PANELS_PER_ROW)
    lines = textwrap.wrap(caption, _CAPTION_LETTERS)
    row_inches = _PANEL_INCHES * height_share + _TITLE_INCHES
    caption_inches = 0.1 + 0.22 * len(lines)
    width, height = _PANELS_PER_ROW * _PANEL_INCHES, rows * row_inches + caption_inches
    figure = Figure(figsize=(width, height), dpi=120)
    figure.text(
        0.5,
        1 - 0.08 / height,
        "\n".join(lines),
        ha="center",
        va="top",
        fontsize=13,
        parse_math=False,
    )
    axes = []
    for number in range(count):
        row, column = divmod(number, _PANELS_PER_ROW)
        bottom = 1 - (caption_inches + (row + 1) * row_inches) / height
        axes.append(
            figure.add_axes(
                (
                    (column + 0.02) / _PANELS_PER_ROW,
                    bottom + 0.02 * _PANEL_INCHES / height,
                    0.96 / _PANELS_PER_ROW,
                    0.96 * _PANEL_INCHES * height_share / height,
                )
            )
        )
    return figure, axes


def _draw(axes: Axes, pixels: Tensor, title: str) -> None:
    axes.imshow(pixels.permute(1, 2, 0).numpy())
    axes.set_title(title, fontsize=12, pad=4, parse_math=False)
    axes.axis("off")
