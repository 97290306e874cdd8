"""Frames to grids of features: raw pixels, a small network, or one of torchvision."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seq2seq.encoders.grid import GridNetwork
from seq2seq.errors import ConfigError

OWN_NETWORKS = ("none", "small")
"""Names of the networks that are not torchvision's."""


class RawFrames(nn.Module):
    """Passes pixels on, as numbers about 0.

    Args:
        channels: Channels of the frames.
        mean: Mean of the frames, per channel, from 0 to 1.
        std: Their standard deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Return frames uint8 or float, 0 to 255, ``(batch, channels, height, width)``, scaled."""
        scaled: Tensor = (frames.to(self.mean.dtype) / 255 - self.mean) / self.std
        return scaled


class SmallNetwork(RawFrames):
    """Convolutions of stride 2, each with group norm: other frames of the batch change nothing.

    Args:
        channels: Channels of the frames.
        mean: Mean of the frames, per channel, from 0 to 1.
        std: Their standard deviation.
        widths: Channels that each convolution gives; multiples of 8.

    Raises:
        ConfigError: If a width is not a multiple of 8, or there is none.
    """

    def __init__(
        self, channels: int, mean: Sequence[float], std: Sequence[float], widths: Sequence[int]
    ) -> None:
        super().__init__(channels, mean, std)
        if not widths or any(width < 8 or width % 8 for width in widths):
            raise ConfigError(
                f"--model.frame_widths={list(widths)} cannot work: give one or more multiples of 8."
            )
        self.layers = nn.Sequential()
        for before, width in zip([channels, *widths], widths, strict=False):
            self.layers.append(nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False))
            self.layers.append(nn.GroupNorm(width // 8, width))
            self.layers.append(nn.ReLU())
        self.channels = widths[-1]

    def forward(self, frames: Tensor) -> Tensor:
        """Return features ``(batch, widths[-1], rows, columns)`` of frames as in ``RawFrames``."""
        features: Tensor = self.layers(super().forward(frames))
        return features


def build_frame_network(
    name: str,
    *,
    widths: Sequence[int],
    layer: str | None,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    difference_std: Sequence[float] | None,
    fine_tune_from: str | None,
    fine_tune_statistics: bool,
) -> RawFrames | GridNetwork:
    """Return what looks at each frame.

    Args:
        name: ``none`` for the pixels themselves, ``small`` for a ``SmallNetwork``, or torchvision's
            name of a classification network.
        widths: Of a ``SmallNetwork``.
        layer: Of a ``GridNetwork``, as the others are.
        image_size: Side of the frames, in pixels.
        mean: Mean of the frames, per channel, from 0 to 1.
        std: Their standard deviation.
        difference_std: Standard deviation of the differences to the frame before, which come in
            further channels; None without them, as for a ``GridNetwork``.
        fine_tune_from: First layer to be fine-tuned.
        fine_tune_statistics: Whether its batch norm follows the batches.

    Raises:
        ConfigError: If there is no such network or layer, or a width cannot be.
    """
    if difference_std is not None:
        mean, std = [*mean, *[0.0] * len(mean)], [*std, *difference_std]
    if name == "none":
        return RawFrames(len(mean), mean, std)
    if name == "small":
        return SmallNetwork(len(mean), mean, std, widths)
    return GridNetwork(
        name,
        layer,
        image_size=image_size,
        mean=mean,
        std=std,
        fine_tune_from=fine_tune_from,
        fine_tune_statistics=fine_tune_statistics,
    )
