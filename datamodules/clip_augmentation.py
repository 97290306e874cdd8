"""Random changes of clips in training, the same for all frames of a clip."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from seq2seq.errors import ConfigError, raise_together

# As for the networks of torchvision.
_ASPECTS = (3 / 4, 4 / 3)
_NO_SCALE = 1.0


@dataclass(frozen=True)
class ClipAugmentation:
    """How clips are changed.

    Args:
        flip: Mirror every second clip, left to right. Labels that differ in these, or clockwise and
            not, would become wrong.
        crop_scale: Smallest share of the area that is cut out and scaled up again, with sides of
            3:4 to 4:3; 1 to cut nothing.
        zoom_out: Largest share: above 1, clips are also scaled down, with black around them, as if
            people stood farther away.
        rotate_degrees: Largest angle to turn by, either way; corners become black.
        brightness: Largest change of brightness; 0.2 multiplies it by 0.8 to 1.2.
        contrast: Largest change of the distance from the mean of the clip, likewise.

    Raises:
        ConfigError: If an option is out of range; all problems together.
    """

    flip: bool = False
    crop_scale: float = _NO_SCALE
    zoom_out: float = _NO_SCALE
    rotate_degrees: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        raise_together(list(self._problems()), ConfigError, "The augmentation cannot work:")

    @property
    def is_active(self) -> bool:
        """Whether there is anything to do."""
        return self != ClipAugmentation()

    def __call__(self, clip: Tensor, generator: np.random.Generator) -> Tensor:
        """Return a changed clip.

        Args:
            clip: uint8 ``(..., time, channels, height, width)``, with 1 or 3 channels.
            generator: Of the random choices; their number does not depend on the options.
        """
        is_flipped = generator.random() < 0.5
        area, aspect, row, column = generator.random(4)
        turn, brightness, contrast = generator.uniform(-1, 1, 3)
        frames = clip.flatten(0, -4)  # (time, channels, height, width)
        if self.flip and is_flipped:
            frames = transforms.horizontal_flip(frames)
        if self.rotate_degrees:
            angle = float(turn) * self.rotate_degrees
            frames = transforms.rotate(frames, angle, InterpolationMode.BILINEAR)
        if self.crop_scale < _NO_SCALE or self.zoom_out > _NO_SCALE:
            frames = self._crop(frames, area, aspect, row, column)
        if self.brightness or self.contrast:
            # As one tall picture: contrast is about the mean of the clip, not of each frame.
            tall = frames.transpose(0, 1).flatten(1, 2)  # (channels, time * height, width)
            tall = transforms.adjust_brightness(tall, 1 + float(brightness) * self.brightness)
            tall = transforms.adjust_contrast(tall, 1 + float(contrast) * self.contrast)
            frames = tall.view(tall.shape[0], len(frames), *frames.shape[2:]).transpose(0, 1)
        return frames.reshape(clip.shape)

    def _crop(
        self, frames: Tensor, area: float, aspect: float, row: float, column: float
    ) -> Tensor:
        """Cut out a part, by numbers from 0 to 1, and scale it to the size there was.

        Source: Szegedy et al. 2015, arXiv:1409.4842, section 6.
        """
        height, width = frames.shape[-2:]
        share = self.crop_scale + area * (self.zoom_out - self.crop_scale)
        low, high = map(math.log, _ASPECTS)
        ratio = math.exp(low + aspect * (high - low))
        largest = max(_NO_SCALE, math.sqrt(self.zoom_out))
        cut_height = max(1, round(height * min(largest, math.sqrt(share / ratio))))
        cut_width = max(1, round(width * min(largest, math.sqrt(share * ratio))))
        top = round(row * (height - cut_height))  # negative where there is black around it
        left = round(column * (width - cut_width))
        cut: Tensor = transforms.resized_crop(
            frames, top, left, cut_height, cut_width, [height, width], antialias=True
        )
        return cut

    def _problems(self) -> Iterator[str]:
        if not 0 < self.crop_scale <= 1:
            yield (
                f"--data.augmentation.crop_scale={self.crop_scale} is no share of an area: choose "
                "more than 0, and 1 to cut nothing."
            )
        if not 1 <= self.zoom_out < math.inf:
            yield (
                f"--data.augmentation.zoom_out={self.zoom_out} is no larger area: choose more "
                "than 1, and 1 for none."
            )
        if not 0 <= self.rotate_degrees <= 180:
            yield (
                f"--data.augmentation.rotate_degrees={self.rotate_degrees} is no angle: choose 0 "
                "to 180."
            )
        for option in ("brightness", "contrast"):
            value = getattr(self, option)
            if not 0 <= value <= 1:
                yield f"--data.augmentation.{option}={value} is out of range: choose 0 to 1."
