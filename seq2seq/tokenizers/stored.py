"""Tells which kind of tokenizer is stored, and loads it."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from seq2seq.errors import DataError
from seq2seq.tokenizers.base import Tokenizer
from seq2seq.tokenizers.labels import LABELS_MAGIC, LabelVocabulary
from seq2seq.tokenizers.subword import SubwordTokenizer
from seq2seq.tokenizers.word import WORDS_MAGIC, WordTokenizer

_KINDS: dict[bytes, Callable[[bytes, str], Tokenizer]] = {
    WORDS_MAGIC: WordTokenizer.from_bytes,
    LABELS_MAGIC: LabelVocabulary.from_bytes,
    b"": SubwordTokenizer,  # the format of SentencePiece has no mark: what has none is tried as it
}


def tokenizer_from_tensor(data: Tensor) -> Tokenizer:
    """Load what the ``to_tensor`` of any tokenizer gave, uint8 ``(bytes,)``.

    Raises:
        DataError: If it is no tokenizer, or one that cannot be used.
    """
    return _load(data.cpu().numpy().tobytes(), "the given tokenizer")


def tokenizer_from_file(path: str | Path) -> Tokenizer:
    """Load a file that holds the ``to_bytes`` of a tokenizer, or a SentencePiece model.

    Raises:
        DataError: If there is no such file, or it is no tokenizer that can be used.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: the tokenizer cannot be read ({error.strerror}). "
            "Give the path of a SentencePiece .model file or of a word vocabulary."
        ) from error
    return _load(data, str(path))


def _load(data: bytes, origin: str) -> Tokenizer:
    load = next(kind for mark, kind in _KINDS.items() if data.startswith(mark))
    return load(data, origin)
