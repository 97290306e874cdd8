"""Pictures as people have them: files of any mode and orientation, and what the network sees."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from seq2seq.errors import ConfigError, DataError, raise_together

Resize = Literal["crop", "squash", "pad", "foreground"]
Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as shares of width and height; it may reach beyond the picture."""

# By format: where Pillow may look at anything, a file named .jpg can start Ghostscript. MPO, which
# many cameras write, is found by way of JPEG.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
# What makes a picture upright, by its EXIF orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Modes of 32-bit whole numbers and floats, whose values do not tell what is black and white.
_UNKNOWN_RANGE = ("I", "F")
# Largest values that pictures of floats are written for: HDR, floats of bytes, of 16-bit numbers.
_FLOAT_SCALES = (1.0, 255.0, 65535.0)
_GREY = (128, 128, 128)
# Of ``foreground``: the noise of a codec is darker, and that of a sensor takes fewer pixels of a
# row, as a share of the shorter side.
_BLACK = 8
_STRAY_SHARE = 0.01


def open_picture(path: Path, *, scaled_as: Path | None = None) -> Image.Image:
    """Read a picture: RGB, upright, decoded; the first frame where it is animated.

    What is transparent lies on white. More than eight bits per pixel are scaled to eight: 16-bit
    numbers by their full range, other numbers and floats as ``_bounds`` says.

    Args:
        path: A file of a common format; its content decides, not its name.
        scaled_as: Of floats, the picture whose range is taken: the first frame of a video, whose
            brightness would flicker if each frame had a range of its own.

    Returns:
        A picture of mode ``RGB``, without metadata.

    Raises:
        DataError: If there is no such file, it is not a picture, it is damaged, or it has more
            pixels than Pillow takes for safe (``PIL.Image.MAX_IMAGE_PIXELS``).
    """
    try:
        # A stream: by its name, Pillow 13 would map the file into memory, and scramble turned TIFF.
        with path.open("rb") as stream, Image.open(stream, formats=_FORMATS) as picture:
            # Pillow refuses only from twice its limit on, and warns below that.
            if _is_too_large(picture):
                raise Image.DecompressionBombError
            picture.load()
            turn = _turn(picture)
            plain = _to_rgb(picture, scaled_as)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path}: has more pixels than is safe to decode ({Image.MAX_IMAGE_PIXELS}). "
            "Make the picture smaller, or leave it out."
        ) from error
    except Exception as error:  # on a damaged file, Pillow raises what its parts happen to raise
        raise DataError(f"{path}: {_reason(path, error)}") from error
    plain.info.clear()  # else its EXIF data would ask for a second rotation
    return plain if turn is None else plain.transpose(turn)


def _is_too_large(picture: Image.Image) -> bool:
    limit = Image.MAX_IMAGE_PIXELS
    return limit is not None and picture.width * picture.height > limit


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist. Give the path of a picture."
    if isinstance(error, IsADirectoryError):
        return "is a folder. Give the path of a picture."
    if isinstance(error, UnidentifiedImageError):
        if path.stat().st_size == 0:
            return "the file is empty. Get it again, or leave it out."
        return f"is not a picture of a known format ({', '.join(_FORMATS)}). Convert it."
    what = str(error) or type(error).__name__
    return f"cannot be decoded ({what}). Get the file again, or leave it out."


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """Return what makes a picture upright, going by its EXIF data."""
    try:
        return _UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken metadata of a sound picture: viewers show it as it lies, too
        return None


def _to_rgb(picture: Image.Image, scaled_as: Path | None) -> Image.Image:
    if _has_numbers(picture):
        values = _numbers(picture)
        bounds = _bounds(values)
        if scaled_as is not None and picture.mode in _UNKNOWN_RANGE:
            bounds = _bounds_of(scaled_as) or bounds
        return Image.fromarray(_eight_bits(values, *bounds)).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


def _has_numbers(picture: Image.Image) -> bool:
    """Return whether a picture has other brightness than of eight bits."""
    return picture.mode in _UNKNOWN_RANGE or picture.mode.startswith("I;16")


def _numbers(picture: Image.Image) -> NDArray[Any]:
    """Return the brightness of a picture; what is not finite is black."""
    numbers: NDArray[Any] = np.nan_to_num(np.asarray(picture), posinf=0.0, neginf=0.0)
    return numbers


def _bounds(values: NDArray[Any]) -> tuple[float, float]:
    """Return what is black and what is white in a picture with other than eight bits.

    Whole numbers up to 65535 are 16-bit brightness. Floats have the smallest of the usual ranges
    that holds them all. Where there are negative or larger values, nothing is known of the range:
    the darkest value is black and the brightest white.
    """
    low, high = float(values.min()), float(values.max())
    scales = _FLOAT_SCALES if values.dtype.kind == "f" else (65535.0,)
    if low >= 0 and high <= scales[-1]:
        return 0.0, next(scale for scale in scales if high <= scale)
    return low, high


def _bounds_of(path: Path) -> tuple[float, float] | None:
    """Return the bounds of another picture; None where it has eight bits."""
    with path.open("rb") as stream, Image.open(stream, formats=_FORMATS) as picture:
        return _bounds(_numbers(picture)) if _has_numbers(picture) else None


def _eight_bits(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Scale brightness to 0 to 255, where ``Image.convert`` would cut it off."""
    if high == low:
        return np.zeros(values.shape, dtype=np.uint8)
    numbers = np.clip(values.astype(np.float64), low, high)
    scaled: NDArray[np.uint8] = np.rint((numbers - low) * (255 / (high - low))).astype(np.uint8)
    return scaled


@dataclass(frozen=True)
class PictureGeometry:
    """How a picture of any size becomes the square that the network sees.

    Resampling is bilinear and antialiased.

    Args:
        size: Side of the square, pixels.
        resize: ``crop`` scales the shorter side to ``size / crop_share`` and cuts the square out
            of the middle; ``squash`` scales both sides to ``size``; ``pad`` scales the longer
            side to ``size`` and fills up with grey on both sides. ``foreground`` cuts a square
            around what is not black, as silhouettes are aligned for the recognition of gait
            (Takemura et al. 2018, doi:10.1186/s41074-018-0039-6): in the middle of its width, and
            standing on its lower edge.
        crop_share: Side of the cut square, as a share of the scaled shorter side, of ``crop``;
            0.875 is 224 of 256 pixels, as the weights of torchvision are evaluated. Of
            ``foreground``, the share of the square's height that is not free above it.

    Raises:
        ConfigError: If an option is out of range; all problems together.
    """

    size: int = 224
    resize: Resize = "crop"
    crop_share: float = 0.875

    def __post_init__(self) -> None:
        raise_together(list(self._problems()), ConfigError, "The picture options cannot work:")

    def __call__(self, picture: Image.Image, box: Box | None = None) -> Tensor:
        """Return the pixels of an RGB picture, uint8 ``(3, size, size)``.

        Args:
            picture: The picture.
            box: Of ``foreground``, what the square shows: where it was in another frame of the same
                video; null to look for it in this picture.
        """
        if self.resize == "foreground":
            square = self._cut(picture, box or self.foreground(picture))
        else:
            to_square = {"crop": self._crop, "squash": self._squash, "pad": self._pad}[self.resize]
            square = to_square(picture)
        return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()

    def foreground(self, picture: Image.Image) -> Box:
        """Return the square around what is not black; of a black picture, that in its middle."""
        is_lit = np.asarray(picture).max(axis=2) > _BLACK
        rows = np.flatnonzero(is_lit.sum(axis=1) > _STRAY_SHARE * min(picture.size))
        if len(rows):
            bottom = int(rows[-1]) + 1
            side = round((bottom - int(rows[0])) / self.crop_share)
            # The median: an arm that is stretched out moves it little.
            middle = float(np.median(np.nonzero(is_lit[rows])[1])) + 0.5
            left, top = round(middle - side / 2), bottom - side
        else:
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
        width, height = picture.size
        return left / width, top / height, (left + side) / width, (top + side) / height

    def settings(self) -> dict[str, int | float | str]:
        """Return the options as plain values, from which an equal object can be made."""
        return asdict(self)

    def _crop(self, picture: Image.Image) -> Image.Image:
        # The pixels of torchvision's Resize and CenterCrop. What lies outside of the square is not
        # computed: a picture of 1 x 10000 pixels would be scaled to gigabytes.
        shorter = min(picture.size)
        scaled_shorter = round(self.size / self.crop_share)
        starts, ends = [], []
        for side in picture.size:
            scaled = int(scaled_shorter * side / shorter)
            start = round((scaled - self.size) / 2)
            starts.append(start * side / scaled)
            ends.append(min((start + self.size) * side / scaled, side))
        return self._resample(picture, (self.size, self.size), (*starts, *ends))

    def _squash(self, picture: Image.Image) -> Image.Image:
        return self._resample(picture, (self.size, self.size), (0, 0, *picture.size))

    def _pad(self, picture: Image.Image) -> Image.Image:
        longer = max(picture.size)
        width, height = (max(1, round(self.size * side / longer)) for side in picture.size)
        square = Image.new("RGB", (self.size, self.size), _GREY)
        scaled = self._resample(picture, (width, height), (0, 0, *picture.size))
        square.paste(scaled, ((self.size - width) // 2, (self.size - height) // 2))
        return square

    def _cut(self, picture: Image.Image, box: Box) -> Image.Image:
        sides = (*picture.size, *picture.size)
        left, top, right, bottom = (
            round(share * side) for share, side in zip(box, sides, strict=True)
        )
        # What lies beyond the picture is not computed: of a tall one it would be gigabytes.
        inner = (max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height))
        square = Image.new("RGB", (self.size, self.size))
        if inner[0] >= inner[2] or inner[1] >= inner[3]:  # of a frame much smaller than the first
            return square
        across, down = self.size / (right - left), self.size / (bottom - top)
        place = (round((inner[0] - left) * across), round((inner[1] - top) * down))
        width = max(1, round((inner[2] - left) * across) - place[0])
        height = max(1, round((inner[3] - top) * down) - place[1])
        square.paste(self._resample(picture, (width, height), inner), place)
        return square

    @staticmethod
    def _resample(
        picture: Image.Image, size: tuple[int, int], box: tuple[float, ...]
    ) -> Image.Image:
        left, top, right, bottom = box
        return picture.resize(size, Image.Resampling.BILINEAR, (left, top, right, bottom))

    def _problems(self) -> Iterator[str]:
        if self.size < 1:
            yield f"--model.image_size={self.size} is too small: choose 1 or more."
        if self.resize not in get_args(Resize):
            choices = ", ".join(get_args(Resize))
            yield f"--model.image_resize={self.resize!r} is unknown; choose one of {choices}."
        if not 0 < self.crop_share <= 1:
            yield (
                f"--model.image_crop_share={self.crop_share} is not a share: "
                "choose more than 0, and at most 1."
            )


def is_picture_name(path: Path) -> bool:
    """Return whether a file is a picture, going by the ending of its name."""
    return path.suffix.lower() in _SUFFIXES


def find_pictures(folder: Path) -> list[Path]:
    """Return the pictures in a folder and the folders below it, sorted, hidden ones left out.

    Raises:
        DataError: If it is not a folder.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder}: {what}. Give a folder of pictures.")
    return sorted(
        path
        for path in folder.rglob("*")
        if is_picture_name(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
