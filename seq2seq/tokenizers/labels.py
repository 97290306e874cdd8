"""Labels as text of a vocabulary of their own."""

import hashlib
import heapq
import json
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from seq2seq.errors import DataError, raise_together
from seq2seq.sequences import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from seq2seq.words import UNKNOWN_WORD

LABEL_SEPARATOR = ";"
"""What joins the labels of several steps; no label has it in its name."""

# Spelled as SentencePiece spells them.
_SPECIAL_PIECES = {PAD_ID: "<pad>", UNK_ID: "<unk>", BOS_ID: "<s>", EOS_ID: "</s>"}
FIRST_LABEL_ID = len(_SPECIAL_PIECES)
"""The id of the first label; what an id exceeds it by is the number of its class."""

# No SentencePiece model begins like this: to its format, "s" opens a field that it does not know.
LABELS_MAGIC = b"seq2seq labels\n"
_CLOSEST_SHOWN = 3


class LabelVocabulary:
    """The classes of a classifier, each an id; a text is one label or several of them, joined.

    Instances can be pickled, so that loader workers may be spawned.

    Args:
        names: The labels in the order of their ids, which begin after the special ones. ``of``
            checks and sorts them.

    Attributes:
        names: The labels, as a tuple; class ``c`` has the id ``FIRST_LABEL_ID + c``.
        vocab_size: Number of labels and special ids.
        unused_ids: None: each id beyond the special ones is a label.
        fingerprint: A hash of the labels, hexadecimal.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._pieces = (*(_SPECIAL_PIECES[i] for i in range(FIRST_LABEL_ID)), *self.names)
        self._ids = {name: i for i, name in enumerate(self.names, start=FIRST_LABEL_ID)}
        self.vocab_size = len(self._pieces)
        self.unused_ids = range(0)
        self.fingerprint = hashlib.blake2b(self.to_bytes(), digest_size=16).hexdigest()

    @classmethod
    def of(cls, names: Iterable[str], origin: str = "the data") -> "LabelVocabulary":
        """Give each label an id, in sorted order.

        Args:
            names: All labels, each once.
            origin: Where they come from, for error messages.

        Raises:
            DataError: If there are fewer than two, or some are alike, empty or have a
                ``LABEL_SEPARATOR``.
        """
        ordered = sorted(names)
        raise_together(_problems(ordered, origin), DataError, f"{origin}: bad labels.")
        return cls(ordered)

    @classmethod
    def from_bytes(cls, data: bytes, origin: str = "the given tokenizer") -> "LabelVocabulary":
        """Load what ``to_bytes`` gave.

        Raises:
            DataError: If ``data`` is something else or is damaged.
        """
        try:
            if not data.startswith(LABELS_MAGIC):
                raise ValueError("it begins otherwise")
            names = json.loads(data[len(LABELS_MAGIC) :])
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError("it is no list of names")
            vocabulary = cls.of(names, "what is stored")
            if list(vocabulary.names) != names:
                raise ValueError("its labels are not in order")
        except ValueError as error:
            raise DataError(
                f"{origin} is not a label vocabulary ({error}). "
                "Give what this project wrote: the checkpoint it came with, or a copy of it."
            ) from error
        return vocabulary

    @classmethod
    def from_tensor(cls, data: Tensor) -> "LabelVocabulary":
        """Load what ``to_tensor`` gave, uint8 ``(bytes,)``."""
        return cls.from_bytes(data.cpu().numpy().tobytes())

    def to_bytes(self) -> bytes:
        """Return the labels, after a mark of their own."""
        return LABELS_MAGIC + json.dumps(self.names).encode("ascii")

    def to_tensor(self) -> Tensor:
        """Return ``to_bytes`` as uint8 ``(bytes,)``, as a checkpoint can hold it."""
        return torch.from_numpy(np.frombuffer(self.to_bytes(), dtype=np.uint8).copy())

    def encode(self, text: str) -> list[int]:
        """Return the ids of the labels of ``text``, without ``BOS_ID`` and ``EOS_ID``.

        Raises:
            DataError: If a label is not in the vocabulary: unlike a rare word, it cannot be
                learned as unknown.
        """
        return [self._id(name) for name in text.split(LABEL_SEPARATOR)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return what ``encode`` gives for each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the labels of ``ids``, joined by ``LABEL_SEPARATOR``; special ids have none.

        Only ``UNK_ID`` becomes a mark, that of SentencePiece, so that it is seen.
        """
        special = {**dict.fromkeys(_SPECIAL_PIECES, ""), UNK_ID: UNKNOWN_WORD}
        names = (special.get(int(i), self._pieces[int(i)]) for i in ids)
        return LABEL_SEPARATOR.join(filter(None, names))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the name of each id."""
        return [self._pieces[int(i)] for i in ids]

    def _id(self, name: str) -> int:
        if name in self._ids:
            return self._ids[name]
        closest = heapq.nlargest(
            _CLOSEST_SHOWN, self.names, key=lambda known: _likeness(known, name)
        )
        raise DataError(
            f"{name!r} is none of the {len(self.names)} labels; the closest are "
            f"{', '.join(map(repr, closest))}. Correct it, or train with examples of it."
        )

    def __reduce__(self) -> tuple[type["LabelVocabulary"], tuple[tuple[str, ...]]]:
        return type(self), (self.names,)


def _problems(names: Sequence[str], origin: str) -> list[str]:
    """Return what is wrong with sorted names, a sentence each."""
    problems = []
    if len(set(names)) < 2:
        found = f"only {names[0]!r}" if names else "none"
        problems.append(f"{origin}: a classifier needs two labels or more, there is {found}.")
    repeated = {name for name, after in pairwise(names) if name == after}
    if repeated:
        shown = ", ".join(map(repr, sorted(repeated)))
        problems.append(f"{origin}: labels that come twice: {shown}. Name each class once.")
    if any(not name.strip() for name in names):
        problems.append(f"{origin}: a label without a name. Name every class.")
    joined = [name for name in names if LABEL_SEPARATOR in name]
    if joined:
        problems.append(
            f"{origin}: labels with {LABEL_SEPARATOR!r}, which stands between labels: "
            f"{', '.join(map(repr, joined))}. Rename them."
        )
    return problems


def _likeness(known: str, name: str) -> float:
    return SequenceMatcher(None, known.casefold(), name.casefold()).ratio()
