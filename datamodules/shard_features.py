"""Features of pictures, which a frozen network has made, in shards."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.caption_dataset import PictureFiles
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
        self._size = len(_npy(np.zeros(network.feature_shape, dtype=np.float16)))

    def sizes(self, split: str) -> list[int]:
        """Return the bytes of each file of a picture of a split."""
        return [self._size] * len(self._names(split))

    def make(self, split: str, paths: Sequence[Path]) -> Iterator[list[tuple[str, bytes]]]:
        """Yield for each picture of a shard its files, as name and content.

        No more than two batches of features are in memory.

        Raises:
            DataError: If a picture cannot be read.
        """
        names = self._names(split)
        views = [
            self._network.compute_features(PictureFiles(paths, self._geometry, name == _MIRRORED))
            for name in names
        ]
        for features in zip(*views, strict=True):
            yield [(name, _npy(array)) for name, array in zip(names, features, strict=True)]

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


def index_entry(network: FeatureNetwork, flip: bool) -> dict[str, Any]:
    """Return what the index says of the features that a network makes."""
    return {"flip": flip, "network": network.feature_origin()}


def check_features(source: str, entry: Mapping[str, Any], network: FeatureNetwork) -> None:
    """Check that features are those of a network.

    Args:
        source: Where they are, for the message.
        entry: What the index says of them.
        network: The network.

    Raises:
        ConfigError: If another one has made them, or of pictures prepared in another way.
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


def _npy(array: NDArray[np.float16]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
