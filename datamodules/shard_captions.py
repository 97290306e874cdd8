"""Captioned pictures, or features of them, as samples of shards, and back."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from datamodules.caption_files import CaptionedPicture
from datamodules.shard_features import FeatureFiles, as_features, index_entry
from datamodules.shard_plan import ShardItem, ShardSource
from datamodules.shard_table import Mapped, Sample
from datamodules.shards import Shards
from seq2seq.feature_cache import FeatureNetwork
from seq2seq.pictures import PictureGeometry


def picture_source(
    splits: Mapping[str, Sequence[CaptionedPicture]], folders: Mapping[str, Path], seed: int
) -> ShardSource:
    """Return captioned pictures as ``write_shards`` takes them.

    Args:
        splits: The pictures of each split; all of them could be decoded.
        folders: Of each split, the folder that their names are below.
        seed: Of their order in the shards.
    """
    return ShardSource("pictures", list(_items(splits, folders)), seed, {}, None)


def feature_source(
    pictures: ShardSource, network: FeatureNetwork, geometry: PictureGeometry, *, flip: bool
) -> ShardSource:
    """Return the features of pictures as ``write_shards`` takes them.

    Args:
        pictures: What ``picture_source`` gave.
        network: What makes the features.
        geometry: How pictures become squares.
        flip: Whether to store those of mirrored training pictures, too.
    """
    made = FeatureFiles(network, geometry, flip)
    return as_features(pictures, "features", made, index_entry(network, flip=flip))


def captioned_pictures(shards: Shards, split: str) -> Sequence[CaptionedPicture]:
    """Return the captioned pictures of a split; none where there is no such split."""
    return Mapped(shards.samples(split), _captioned_picture)


def relative_name(path: Path, folder: Path) -> str:
    """Return what a file is called, wherever the folder lies that it should be below."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix().strip("/")


def _items(
    splits: Mapping[str, Sequence[CaptionedPicture]], folders: Mapping[str, Path]
) -> Iterator[ShardItem]:
    for split, pictures in splits.items():
        for place, picture in enumerate(pictures):
            values = {"captions": picture.captions, "place": picture.place}
            name = relative_name(picture.path, folders[split])
            yield ShardItem(split, picture.path, name, ((place, values),), _is_checked)


def _captioned_picture(sample: Sample) -> CaptionedPicture:
    captions = tuple(sample.values["captions"])
    return CaptionedPicture(sample.path, captions, sample.split, sample.values["place"])


def _is_checked() -> None:
    """Do nothing: a data module decodes all pictures when it prepares them."""
