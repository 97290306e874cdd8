"""Where captioned pictures are: in files, or in shards."""

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datamodules.caption_dataset import PictureFiles, Views
from datamodules.caption_files import SPLITS, CaptionedPicture, CaptionFormat, read_splits
from datamodules.picture_check import good_pictures
from datamodules.shard_captions import captioned_pictures
from datamodules.shard_features import StoredFeatures, check_features
from datamodules.shard_table import Mapped
from datamodules.shards import Shards
from seq2seq.errors import ConfigError
from seq2seq.feature_cache import FeatureNetwork
from seq2seq.pictures import PictureGeometry, open_picture

Splits = Mapping[str, Sequence[CaptionedPicture]]
"""The pictures of each split, by its name."""


class CaptionFiles:
    """Captioned pictures in files.

    Args:
        files: Caption file and folder of pictures of each split.
        format: Format of the caption files.
        names: What each split is called in a file that names them.
        shares: Share of ``val`` and of ``test`` in one that does not.
        seed: Of the choice.
        cache: Folder of features, and of the list of bad pictures.

    Attributes:
        splits: The pictures of each split, bad ones included.
        unchecked: All of them that may be bad.
        has_pictures: Whether there are pictures, and not features alone.

    Raises:
        DataError: If a file cannot be used.
    """

    has_pictures = True

    def __init__(
        self,
        files: Mapping[str, tuple[Path, Path]],
        format: CaptionFormat,  # noqa: A002  # the name of the option
        names: Mapping[str, str],
        shares: Mapping[str, float],
        seed: int,
        cache: Path,
    ) -> None:
        self._files = files
        self._cache = cache
        self.splits: Splits = read_splits(files, format, names, shares, seed)
        self.unchecked = [picture for pictures in self.splits.values() for picture in pictures]
        path, _ = files["train"]
        # Which pictures are for training also depends on the splits that have files of their own.
        roles = [role for role in SPLITS if files[role][0] == path]
        own_shares = {role: shares[role] for role in roles if role != "train"}
        self._selection = format, names["train"], own_shares, seed

    def good_splits(self) -> Splits:
        """Return the pictures of each split without those that ``check_pictures`` found bad.

        Raises:
            DataError: If they have not been checked, or changed since.
        """
        paths = {picture.path for picture in good_pictures(self.unchecked, self._cache)}
        return {
            role: [picture for picture in pictures if picture.path in paths]
            for role, pictures in self.splits.items()
        }

    def training_text(self) -> tuple[list[Path], tuple[object, ...]]:
        """Return what files the training captions are from, and what of these they are."""
        return [self._files["train"][0]], self._selection

    def shard_numbers(self, role: str) -> None:
        """Return None: files are in no shards."""

    def read(self, path: Path) -> Image.Image:
        """Read a picture, to see whether it is sound."""
        return open_picture(path)

    def views(
        self,
        pictures: Sequence[CaptionedPicture],
        geometry: PictureGeometry,
        network: FeatureNetwork | None,
        is_flipped: bool = False,
    ) -> Views:
        """Return some of the pictures, or features of them, as a network wants them.

        Args:
            pictures: The pictures.
            geometry: How they become squares.
            network: What makes the features; None to give the pictures.
            is_flipped: Whether they are mirrored.

        Raises:
            DataError: If features cannot be made or kept.
        """
        files = PictureFiles(Mapped(pictures, attrgetter("path")), geometry, is_flipped)
        return files if network is None else network.cached_features(files, self._cache)


class CaptionShards:
    """Captioned pictures in shards, or features of them.

    Args:
        source: Folder or URL of the shards.
        cache: Folder of features, and of what is fetched from a URL.
        cache_gb: As for ``Shards``.
        window: As for ``Shards``.
        cache_features: Whether features are wanted.
        flip: Whether mirrored pictures are wanted, too.

    Attributes:
        splits: The pictures of each split.
        unchecked: None of them: ``seq2seq-prepare`` has read them.
        has_pictures: Whether there are pictures, and not features alone.

    Raises:
        ConfigError: As for ``Shards``, or if there are features where pictures are wanted, or none
            of mirrored pictures where these are.
        DataError: As for ``Shards``.
    """

    unchecked: Sequence[CaptionedPicture] = ()

    def __init__(
        self,
        source: str,
        cache: Path,
        cache_gb: float,
        window: int | None,
        *,
        cache_features: bool,
        flip: bool,
    ) -> None:
        self._source = source
        self._cache = cache
        self._shards = Shards(source, "pictures", cache, cache_gb, window, alternative="features")
        self.splits: Splits = {role: captioned_pictures(self._shards, role) for role in SPLITS}
        self.has_pictures = self._shards.features is None
        if self._shards.features is None:
            return
        if not cache_features:
            raise ConfigError(
                f"{source}: holds features of pictures, which are read with --data.cache_features "
                "true. Set that, and let the model have the network that made them; or give "
                "shards of pictures."
            )
        if flip and not self._shards.features["flip"]:
            raise ConfigError(
                f"{source}: has no features of mirrored pictures. Set --data.flip to false, or run "
                "seq2seq-prepare with --data.flip true."
            )

    def good_splits(self) -> Splits:
        """Return the pictures of each split; bad ones are not in shards."""
        return self.splits

    def training_text(self) -> tuple[list[Path], tuple[object, ...]]:
        """Return what files the training captions are from: none; and what tells them apart."""
        return [], (self._shards.fingerprint,)

    def read(self, path: Path) -> object:
        """Read a picture, or all features of it, to see whether they are sound."""
        if self.has_pictures:
            return self._shards.open_picture(path)
        return self._shards.read_arrays(path)

    def shard_numbers(self, role: str) -> NDArray[np.int64]:
        """Return the shard of each picture of a split, int64 ``(pictures,)``."""
        return self._shards.shard_numbers(role)

    def views(
        self,
        pictures: Sequence[CaptionedPicture],
        geometry: PictureGeometry,
        network: FeatureNetwork | None,
        is_flipped: bool = False,
    ) -> Views:
        """Return some of the pictures, or features of them, as a network wants them.

        The arguments are those of ``CaptionFiles``.

        Raises:
            ConfigError: If the features in the shards are not those of the network.
            DataError: If features cannot be made or kept.
        """
        paths = Mapped(pictures, attrgetter("path"))
        if self._shards.features is not None:
            if network is not None:
                check_features(self._source, self._shards.features, network)
            return StoredFeatures(self._shards, paths, is_flipped)
        files = PictureFiles(paths, geometry, is_flipped, self._shards)
        return files if network is None else network.cached_features(files, self._cache)


def source_problems(
    files: Mapping[str, tuple[Path, Path]],
    images: str | None,
    shares: Mapping[str, float],
    is_sharded: bool,
) -> Iterator[str]:
    """Yield what is wrong with the options of where pictures are, one sentence each.

    Args:
        files: As for ``CaptionFiles``.
        images: The folder of pictures that was given.
        shares: As for ``CaptionFiles``.
        is_sharded: Whether the pictures are in shards.
    """
    if images is None and not is_sharded:
        yield "--data.images is not set: give the folder of the pictures."
    if is_sharded and len({captions for captions, _ in files.values()}) > 1:
        yield (
            "--data.format shards has all splits in --data.captions: leave out val_captions "
            "and test_captions, or set them to null."
        )
    for role in ("val", "test"):
        captions, folder = files[role]
        if captions == files["train"][0] and folder != files["train"][1]:
            yield (
                f"--data.{role}_images is for --data.{role}_captions, which is not given: set "
                "both, or neither."
            )
    if sum(shares.values()) >= 1:
        yield "--data.val_share and --data.test_share leave nothing to train on: lower them."
