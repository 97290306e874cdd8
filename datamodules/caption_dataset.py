"""Pictures with their captions as examples, and how they become a batch."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from datamodules.base import SequenceDataset, problems_of
from datamodules.caption_files import CaptionedPicture
from datamodules.shard_table import LazySequence
from datamodules.shards import Shards
from seq2seq.batches import Batch
from seq2seq.errors import DataError
from seq2seq.pictures import PictureGeometry, open_picture
from seq2seq.sequences import EOS_ID, pad_sequences
from seq2seq.tokenizers import Tokenizer
from seq2seq.words import caption_words

CaptionStyle = Literal["plain", "raw"]

# A mirrored picture would make these lie.
_SIDES = re.compile(r"\b(left|right)", re.IGNORECASE)


class PictureFiles:
    """Pictures as the network sees them, by their place in a list.

    Args:
        paths: Their files, or what ``shards`` knows them by.
        geometry: How they become squares.
        is_flipped: Whether they are mirrored.
        shards: What holds them; None where they are files.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        geometry: PictureGeometry,
        is_flipped: bool = False,
        shards: Shards | None = None,
    ) -> None:
        self._paths = paths
        self._geometry = geometry
        self._is_flipped = is_flipped
        self._shards = shards

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, place: int) -> Tensor:
        path = self._paths[place]
        picture = open_picture(path) if self._shards is None else self._shards.open_picture(path)
        if self._is_flipped:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return self._geometry(picture)

    def fingerprint(self) -> str:
        """Return a hash of the settings and of what tells the files apart, hexadecimal."""
        settings = (self._geometry.settings(), self._is_flipped)
        digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
        for path in self._paths:
            if self._shards is None:
                status = path.stat()
                digest.update(repr((path.name, status.st_size, status.st_mtime_ns)).encode())
            else:
                digest.update(repr((str(path), self._shards.fingerprint)).encode())
        return digest.hexdigest()


class Views(Protocol):
    """Pictures, or features of them, by their place in a list."""

    def __getitem__(self, place: int) -> Tensor: ...


class EncodedCaptions(LazySequence[list[NDArray[np.int32]]]):
    """Ids of the captions of pictures, encoded when they are asked for.

    Args:
        pictures: The pictures.
        tokenizer: What encodes them.
        style: How they are written before that.
        max_length: Largest number of ids of a caption, ``EOS_ID`` included.
    """

    def __init__(
        self,
        pictures: Sequence[CaptionedPicture],
        tokenizer: Tokenizer,
        style: CaptionStyle,
        max_length: int,
    ) -> None:
        self._pictures = pictures
        self._tokenizer = tokenizer
        self._style: CaptionStyle = style
        self._max_length = max_length

    def __len__(self) -> int:
        return len(self._pictures)

    def _at(self, place: int) -> list[NDArray[np.int32]]:
        return self._encode(self._pictures[place])

    def __iter__(self) -> Iterator[list[NDArray[np.int32]]]:
        return map(self._encode, self._pictures)

    def _encode(self, picture: CaptionedPicture) -> list[NDArray[np.int32]]:
        texts = [styled(text, self._style) for text in picture.captions]
        limit = self._max_length - 1
        return [
            np.array([*ids[:limit], EOS_ID], dtype=np.int32)
            for ids in self._tokenizer.encode_batch(texts)
        ]


def styled(caption: str, style: CaptionStyle) -> str:
    """Return a caption as the network learns it."""
    return caption if style == "raw" else " ".join(caption_words(caption))


class CaptionExample(NamedTuple):
    """A picture and its captions.

    Attributes:
        view: The picture, uint8 ``(3, size, size)``, or its features ``(cells, channels)``.
        targets: Ids of each caption, ending in ``EOS_ID``, int64 ``(time,)``.
        position: Index in the split.
        references: Its captions as they stand in the file.
        problem: Why it could not be decoded, where the view is blank.
    """

    view: Tensor
    targets: tuple[Tensor, ...]
    position: int
    references: tuple[str, ...]
    problem: str | None = None


class CaptionDataset(SequenceDataset[CaptionExample]):
    """The captioned pictures of a split.

    Args:
        views: The pictures.
        mirrored: The same pictures mirrored; None to mirror none.
        tokens: Ids of the captions of each picture, each ending in ``EOS_ID``.
        references: The captions of each picture.
        captions_per_picture: How many captions to choose at random each time; None for all.
        seed: Of the random choices.
    """

    def __init__(
        self,
        views: Views,
        mirrored: Views | None,
        tokens: Sequence[Sequence[NDArray[np.int32]]],
        references: Sequence[tuple[str, ...]],
        captions_per_picture: int | None = None,
        seed: int = 1,
    ) -> None:
        super().__init__(seed)
        self._views = views
        self._mirrored = mirrored
        self._tokens = tokens
        self._references = references
        self._captions_per_picture = captions_per_picture

    def __len__(self) -> int:
        return len(self._references)

    def __getitem__(self, index: int) -> CaptionExample:
        generator = self.generator(index)
        references, tokens = self._references[index], self._tokens[index]
        view = self._views
        # The number is drawn in any case: what follows must not depend on the captions.
        is_mirrored = generator.random() < 0.5
        if self._mirrored is not None and is_mirrored and not names_a_side(references):
            view = self._mirrored
        limit = self._captions_per_picture
        if limit is not None and limit < len(tokens):
            tokens = [tokens[row] for row in generator.permutation(len(tokens))[:limit]]
        return CaptionExample(
            view[index],
            tuple(torch.from_numpy(ids.astype("int64")) for ids in tokens),
            index,
            references,
        )


def names_a_side(captions: Sequence[str]) -> bool:
    """Return whether any caption speaks of left or right."""
    return any(_SIDES.search(caption) for caption in captions)


class PictureDataset(SequenceDataset[CaptionExample]):
    """Pictures without captions, as prediction wants them.

    Args:
        views: The pictures.
        size: How many there are.
        blank: What is in the place of one that cannot be decoded, uint8 ``(3, size, size)``; None
            to raise its error.
    """

    def __init__(self, views: Views, size: int, blank: Tensor | None = None) -> None:
        super().__init__(seed=0)
        self._views = views
        self._size = size
        self._blank = blank

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> CaptionExample:
        try:
            return CaptionExample(self._views[index], (), index, ())
        except DataError as error:
            if self._blank is None:
                raise
            return CaptionExample(self._blank, (), index, (), str(error))


def collate(examples: list[CaptionExample]) -> Batch:
    """Return the examples as one batch: each picture once, whatever number of captions it has."""
    targets = [target for example in examples for target in example.targets]
    counts = torch.tensor([len(example.targets) for example in examples])
    return Batch(
        inputs=torch.stack([example.view for example in examples]),
        target=pad_sequences(targets) if targets else None,
        indices=torch.tensor([example.position for example in examples]),
        references=tuple(example.references for example in examples if example.references),
        rows=torch.arange(len(examples)).repeat_interleave(counts) if targets else None,
        problems=problems_of([example.problem for example in examples]),
    )
