"""Features in shards, which a frozen network has made; those of pictures."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.caption_dataset import PictureFiles
from datamodules.shard_index import ShardKind
from datamodules.shard_plan import ItemFile, MadeFiles, ShardItem, ShardSource, made_file
from datamodules.shards import Shards
from seq2seq.errors import ConfigError
from seq2seq.feature_cache import FeatureNetwork
from seq2seq.pictures import PictureGeometry

# The files of a sample; beside what the network made of a picture, that of its mirror image.
_PLAIN = "npy"
_MIRRORED = "mirrored.npy"


class FeatureFiles:
    """What a frozen network makes of pictures, as files to be stored in their place.

    Args:
        network: The network.
        geometry: How pictures become squares.
        flip: Whether to make features of mirrored training pictures, too.
    """

    def __init__(self, network: FeatureNetwork, geometry: PictureGeometry, flip: bool) -> None:
        self._network = network
        self._geometry = geometry
        self._flip = flip
        self._size = len(array_bytes(np.zeros(network.feature_shape, dtype=np.float16)))

    def sizes(self, item: ShardItem) -> list[int]:
        """Return the bytes of each file of a picture."""
        return [self._size] * len(self._names(item.split))

    def make(
        self, items: Sequence[ShardItem]
    ) -> Iterator[AbstractContextManager[Sequence[ItemFile]]]:
        """Yield for each picture of a shard what gives its files.

        No more than two batches of features are in memory.

        Raises:
            DataError: If a picture cannot be read.
        """
        names = self._names(items[0].split)
        paths = [item.path for item in items]
        views = [
            self._network.compute_features(PictureFiles(paths, self._geometry, name == _MIRRORED))
            for name in names
        ]
        for features in zip(*views, strict=True):
            made = zip(names, map(array_bytes, features), strict=True)
            yield nullcontext([made_file(name, content) for name, content in made])

    def _names(self, split: str) -> list[str]:
        return [_PLAIN, _MIRRORED] if self._flip and split == "train" else [_PLAIN]


class StoredFeatures:
    """Features in shards, by the place of their picture in a list.

    Args:
        shards: What holds them.
        paths: What ``shards`` knows the pictures by.
        is_flipped: Whether to give those of mirrored pictures.
    """

    def __init__(self, shards: Shards, paths: Sequence[Path], is_flipped: bool) -> None:
        self._shards = shards
        self._paths = paths
        self._name = _MIRRORED if is_flipped else _PLAIN

    def __getitem__(self, place: int) -> Tensor:
        """Return the features of a picture, float16 ``(cells, channels)``."""
        return torch.from_numpy(self._shards.read_array(self._paths[place], self._name))


def as_features(
    source: ShardSource, kind: ShardKind, made: MadeFiles, entry: dict[str, Any]
) -> ShardSource:
    """Return a source of features in place of the items of another one.

    Args:
        source: The other one.
        kind: What the features are.
        made: What makes them.
        entry: What ``index_entry`` gave.
    """
    settings = (source.settings, entry)
    return source._replace(kind=kind, settings=settings, made=made, features=entry)


def index_entry(network: FeatureNetwork, **options: Any) -> dict[str, Any]:
    """Return what the index says of the features that a network makes.

    Args:
        network: The network.
        **options: What else they depend on, in plain values.
    """
    return {**options, "network": network.feature_origin()}


def check_features(source: str, entry: Mapping[str, Any], network: FeatureNetwork) -> None:
    """Check that features are those of a network.

    Args:
        source: Where they are, for the message.
        entry: What the index says of them.
        network: The network.

    Raises:
        ConfigError: If another one has made them, or of something prepared in another way.
    """
    found, wanted = entry["network"], network.feature_origin()
    options = [name for name in wanted if name != "extractor" and found.get(name) != wanted[name]]
    listed = [f"{name} {found.get(name)} (now {wanted[name]})" for name in options]
    # The hash is of some options, too: it has news only where they are the same.
    if not listed and found.get("extractor") != wanted["extractor"]:
        listed = ["the weights of the backbone"]
    if listed:
        raise ConfigError(
            f"{source}: its features were made in another way: {', '.join(listed)}. Set these "
            "--model options to those of the features, or run seq2seq-prepare with this recipe."
        )


def array_bytes(array: NDArray[Any]) -> bytes:
    """Return an array as the content of an ``.npy`` file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
