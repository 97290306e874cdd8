"""Tokenizers that are trained once on the training text, or given by the user."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from datamodules.cache import content_key, require_prepared
from seq2seq.appearing import appearing
from seq2seq.errors import DataError
from seq2seq.tokenizers import Normalization, SubwordTokenizer, Tokenizer, TokenizerType

Vocabulary = Literal["word", "unigram", "bpe", "char"]
"""Whole words, or SentencePiece's kinds of model."""

Kind = TypeVar("Kind", bound=Tokenizer)


@dataclass(frozen=True)
class TokenizerSettings:
    """What a tokenizer is to be.

    Attributes:
        vocab_size: Number of pieces.
        vocab_size_option: Where the user sets it, for error messages.
        model_type: How words are cut up.
        normalization: SentencePiece's rule.
    """

    vocab_size: int
    vocab_size_option: str
    model_type: TokenizerType
    normalization: Normalization


def tokenizer_path(
    cache: Path, paths: Iterable[Path], selection: tuple[object, ...], settings: TokenizerSettings
) -> Path:
    """Return where a trained tokenizer is, or is to be.

    Args:
        cache: Folder of the cache.
        paths: Files that it is trained on.
        selection: What of these files it is trained on, such as a language.
        settings: What it is to be.

    Raises:
        DataError: If a file cannot be read.
    """
    options = (settings.vocab_size, settings.model_type, settings.normalization)
    return cache / f"tokenizer-{content_key(paths, *selection, *options)}.model"


def train_tokenizer(
    path: Path, sentences: Iterable[str], settings: TokenizerSettings, origin: str
) -> None:
    """Train a tokenizer and leave it in ``path``, unless that has been done.

    Args:
        path: What ``tokenizer_path`` gave.
        sentences: Training text, one line each.
        settings: What it is to be.
        origin: Where the sentences come from, for error messages.

    Raises:
        DataError: If a file cannot be used, or the vocabulary does not fit it.
    """
    if path.is_file():
        return
    tokenizer = SubwordTokenizer.train(
        sentences,
        settings.vocab_size,
        settings.model_type,
        settings.normalization,
        vocab_size_option=settings.vocab_size_option,
        origin=origin,
    )
    with appearing(path) as partial:
        partial.write_bytes(tokenizer.to_bytes())


def load_trained_tokenizer(path: Path, read: Callable[[Path], Kind]) -> Kind:
    """Load what ``train_tokenizer`` or another one that makes tokenizers left.

    Args:
        path: Where it is.
        read: Reads a tokenizer from a file, such as ``SubwordTokenizer.from_file``.

    Raises:
        DataError: If it is not there, or damaged.
    """
    require_prepared(path)
    try:
        return read(path)
    except DataError as error:
        raise DataError(f"{path} is damaged. Delete it: it is made anew.") from error


def load_given_tokenizer(
    path: str, vocab_size: int, vocab_size_option: str, read: Callable[[Path], Kind]
) -> Kind:
    """Load the user's own tokenizer.

    Args:
        path: Where it is.
        vocab_size: The size that it must have.
        vocab_size_option: Where the user sets that, for the error message.
        read: Reads a tokenizer from a file, such as ``SubwordTokenizer.from_file``.

    Raises:
        DataError: If there is no such file, it is not a model that can be used, or it has another
            size.
    """
    tokenizer = read(Path(path))
    if tokenizer.vocab_size != vocab_size:
        raise DataError(
            f"{path} has {tokenizer.vocab_size} pieces, not {vocab_size}. "
            f"Set {vocab_size_option} to {tokenizer.vocab_size}."
        )
    return tokenizer
