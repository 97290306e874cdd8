"""Features of pictures or frames, computed once, for a memory-mapped array or for shards."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from seq2seq.appearing import appearing
from seq2seq.errors import DataError

# On a CPU, larger activations than those of a few pictures leave its caches, and are given back to
# the system and fetched anew at every layer.
_BATCHES = {"cpu": 4, "cuda": 64}
# One thread at a time computes: it takes all cores, or all of a GPU, and with fewer cores for each
# the last bits of features would depend on how many there are.
_COMPUTING = threading.RLock()
_ARRAY = "features.npy"
_SETTINGS = "settings.json"


class Views(Protocol):
    """Pictures or frames by their place in a list, as a network takes them."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int) -> Tensor:
        """Return a picture, uint8 ``(channels, size, size)``."""
        ...


class Pictures(Views, Protocol):
    """Pictures or frames that can be told from others."""

    def fingerprint(self) -> str:
        """Return a hash of which pictures they are, hexadecimal."""
        ...


class Extractor(Protocol):
    """What makes features of pictures; a ``GridNetwork`` does."""

    def extract(self, pictures: Tensor) -> Tensor:
        """Return features ``(batch, cells, channels)`` of pictures uint8."""
        ...

    def fingerprint(self) -> str:
        """Return a hash of all that the features of a picture depend on."""
        ...


class FeatureArray:
    """Features in a memory-mapped file; pickled as its path, not as its content.

    Args:
        folder: Where ``write_features`` left them.
        settings: What they must have been made with.

    Raises:
        DataError: If files are missing or damaged, or were made with something else.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._folder = folder
        self._settings = settings
        try:
            found = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
            self._array: NDArray[np.float16] = np.load(folder / _ARRAY, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            if not folder.exists():
                raise DataError(
                    f"{folder} is missing. With several machines, set --data.cache_dir to a folder "
                    "that all of them share."
                ) from error
            raise DataError(
                f"{folder} is damaged ({error}). Delete this folder: it is made anew."
            ) from error
        if found != settings or len(self._array) != settings["count"]:
            raise DataError(
                f"{folder} holds features of other pictures, weights or another preparation than "
                "its name says. Delete this folder: it is made anew."
            )

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, place: int) -> Tensor:
        return torch.from_numpy(np.array(self._array[place]))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._folder, self._settings)


class FeatureNetwork(Protocol):
    """What gives a data module the features of what it has; a ``GridNetworkTask`` does."""

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Cells and channels of the features of a picture."""
        ...

    def feature_origin(self) -> dict[str, Any]:
        """Return what the features of a picture depend on, besides itself, in plain values."""
        ...

    def compute_features(self, pictures: Views) -> Iterator[NDArray[np.float16]]:
        """Yield the features of each picture, ``(cells, channels)``, in order."""
        ...

    def cached_features(self, pictures: Pictures, cache: Path) -> FeatureArray:
        """Return the features of some pictures, kept in the folder ``cache``."""
        ...


def feature_settings(
    extractor: Extractor, preparation: dict[str, Any], pictures: Pictures
) -> dict[str, Any]:
    """Return what the features of some pictures depend on, in plain values.

    Args:
        extractor: What makes them.
        preparation: How the pictures are prepared for it.
        pictures: The pictures.
    """
    return {
        "extractor": extractor.fingerprint(),
        "preparation": preparation,
        "pictures": pictures.fingerprint(),
        "count": len(pictures),
    }


def feature_folder(cache: Path, settings: dict[str, Any]) -> Path:
    """Return where the features made with ``settings`` are, or are to be."""
    key = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    return cache / f"features-{key.hexdigest()}"


@torch.no_grad()
def compute_features(
    extractor: Extractor, pictures: Views, device: torch.device
) -> Iterator[NDArray[np.float16]]:
    """Yield the features of pictures, ``(batch, cells, channels)``, in order.

    Pictures are decoded by all cores while the network works. Several threads may do this at once;
    the network takes their batches in turn.

    Args:
        extractor: What makes the features.
        pictures: The pictures, at least one.
        device: Where the network is.

    Raises:
        DataError: If a picture cannot be read.
    """
    for batch in _read_ahead(pictures, _BATCHES.get(device.type, 64)):
        with _COMPUTING:
            features: NDArray[np.float16] = extractor.extract(batch.to(device)).half().cpu().numpy()
        yield features


def write_features(
    folder: Path,
    extractor: Extractor,
    pictures: Pictures,
    settings: dict[str, Any],
    device: torch.device,
) -> None:
    """Compute the features of all pictures into ``folder``, unless that has been done.

    A bar on the terminal says how far it is. The folder appears when it is complete, not before.

    Args:
        folder: What ``feature_folder`` gave.
        extractor: What makes the features.
        pictures: The pictures, at least one.
        settings: What ``feature_settings`` gave.
        device: Where the network is.

    Raises:
        DataError: If a picture cannot be read, or the folder not be written.
    """
    if folder.is_dir():
        return
    console = Console(stderr=True)
    with (
        appearing(folder) as made,
        Progress(console=console, disable=not console.is_terminal) as progress,
    ):
        made.mkdir()
        bar = progress.add_task("features", total=len(pictures))
        # Not through a memory map, where a full disk ends the process without a word.
        with (made / _ARRAY).open("wb") as file:
            for features in compute_features(extractor, pictures, device):
                if not file.tell():
                    write_header(file, (len(pictures), *features.shape[1:]))
                file.write(features.tobytes())
                progress.advance(bar, len(features))
        (made / _SETTINGS).write_text(json.dumps(settings), encoding="utf-8")


def write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Write what an ``.npy`` file of features begins with; as long for any length of them."""
    header = {"descr": "<f2", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _read_ahead(pictures: Views, size: int) -> Iterator[Tensor]:
    """Yield the pictures in batches, reading the next one meanwhile."""
    count = len(pictures)
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def submit(start: int) -> Iterator[Tensor]:
            return pool.map(pictures.__getitem__, range(start, min(start + size, count)))

        upcoming = submit(0)
        for following in range(size, count + size, size):
            ready = torch.stack(list(upcoming))
            upcoming = submit(following)
            yield ready
