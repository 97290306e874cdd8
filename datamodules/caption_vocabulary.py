"""The vocabulary of captions: of words or subwords, made of them or given by the user."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from datamodules.caption_dataset import CaptionStyle, styled
from datamodules.caption_files import CaptionedPicture
from datamodules.tokenizer_cache import (
    TokenizerSettings,
    Vocabulary,
    load_given_tokenizer,
    load_trained_tokenizer,
    tokenizer_path,
    train_tokenizer,
)
from datamodules.word_vocabulary import report_unused
from seq2seq.tokenizers import (
    SubwordTokenizer,
    Tokenizer,
    WordTokenizer,
    tokenizer_from_file,
)


class VocabularyOptions(NamedTuple):
    """What a vocabulary is to be; the options of ``CaptionDataModule``."""

    vocabulary: Vocabulary
    vocab_size: int
    minimum_count: int
    caption_style: CaptionStyle
    tokenizer: str | None


def caption_tokenizer(
    options: VocabularyOptions,
    pictures: Sequence[CaptionedPicture],
    origin: str,
    cache: Path,
    files: Iterable[Path],
    selection: tuple[object, ...],
    *,
    may_train: bool,
) -> Tokenizer:
    """Return the tokenizer of captions.

    Args:
        options: What it is to be.
        pictures: Those of training, of whose captions it is made, unless one is given.
        origin: Where they come from, for messages.
        cache: Folder of what was trained before.
        files: What the pictures were read from.
        selection: What of these files they are.
        may_train: Whether to train what is not in the cache, and to say if there are fewer words
            than the vocabulary has room for; words are counted each time.

    Raises:
        DataError: If the captions or the given one cannot be used, or the one to be trained is
            missing and must not be.
    """
    if options.tokenizer is not None:
        return load_given_tokenizer(
            options.tokenizer, options.vocab_size, "--data.vocab_size", tokenizer_from_file
        )
    style = options.caption_style
    sentences = (styled(text, style) for picture in pictures for text in picture.captions)
    if options.vocabulary == "word":
        words = WordTokenizer.train(
            sentences, options.vocab_size, options.minimum_count, origin=origin
        )
        if may_train:
            report_unused(words, origin)
        return words
    settings = TokenizerSettings(
        options.vocab_size, "--data.vocab_size", options.vocabulary, "nmt_nfkc"
    )
    trained = tokenizer_path(cache, files, (*selection, style), settings)
    if may_train:
        train_tokenizer(trained, sentences, settings, origin=origin)
    return load_trained_tokenizer(trained, SubwordTokenizer.from_file)
