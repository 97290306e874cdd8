"""What every tokenizer offers."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Tokenizer(Protocol):
    """Turns text into ids and back; the special ids are those of ``seq2seq.sequences``.

    Attributes:
        vocab_size: Number of ids, special ones included.
        unused_ids: Those that stand for nothing: no text has them, and no output may.
        fingerprint: A hash, hexadecimal; equal only for tokenizers that encode alike.
    """

    vocab_size: int
    unused_ids: range
    fingerprint: str

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without ``BOS_ID`` and ``EOS_ID``."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return what ``encode`` gives for each text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; special ids have none, but for a mark of ``UNK_ID``."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the spelling of each id."""
        ...

    def to_bytes(self) -> bytes:
        """Return all that makes the tokenizer, which tells its kind as well."""
        ...

    def to_tensor(self) -> Tensor:
        """Return the same as uint8 ``(bytes,)``, as a checkpoint can hold it."""
        ...
