"""Labelled texts, tokenised once."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from numpy.typing import NDArray

from datamodules.faults import Fault, Faults
from datamodules.review_files import ReviewSource
from datamodules.review_formats import Review, ReviewFile
from datamodules.review_splits import label_text
from datamodules.token_corpus import TokenisedCorpus, row_writer
from datamodules.tokenizer_cache import TokenizerSettings, Vocabulary, train_tokenizer
from seq2seq.appearing import appearing
from seq2seq.sequences import EOS_ID
from seq2seq.tokenizers import LabelVocabulary, Tokenizer, WordTokenizer
from seq2seq.truncation import Keep, keep_part
from seq2seq.words import REVIEW_TOKENIZER, review_words

OnEmpty = Literal["error", "drop"]

_log = logging.getLogger(__name__)

_REVIEWS_AT_ONCE = 1024
_EMPTY = Fault(
    "reviews without a word", "Fill or remove them, or set --data.on_empty=drop to leave them out."
)


class ReadingLimits(NamedTuple):
    """What is read of a text.

    Attributes:
        max_length: Most tokens, without the end of sequence.
        keep: Which part of a longer text.
        on_empty: Whether a labelled text without a token is an error, or left out.
    """

    max_length: int
    keep: Keep
    on_empty: OnEmpty


def train_vocabulary(
    path: Path, texts: Iterable[str], vocabulary: Vocabulary, vocab_size: int, origin: str
) -> None:
    """Make the vocabulary of some texts and leave it in ``path``, unless that has been done.

    Args:
        path: Where it is to be.
        texts: What it is made of.
        vocabulary: Words by the rules of ``review_words``, or a kind of SentencePiece model, which
            folds upper case into lower case and else takes texts as they are.
        vocab_size: Number of tokens, special ones included; of words, the most.
        origin: Where the texts come from, for error messages.

    Raises:
        DataError: If the texts cannot be used, or the vocabulary does not fit them.
    """
    if vocabulary != "word":
        settings = TokenizerSettings(vocab_size, "--data.vocab_size", vocabulary, "nmt_nfkc_cf")
        train_tokenizer(path, texts, settings, origin)
    elif not path.is_file():
        words = WordTokenizer.train(texts, vocab_size, origin=origin, rules=REVIEW_TOKENIZER)
        with appearing(path) as partial:
            partial.write_bytes(words.to_bytes())


def check_reviews(
    source: ReviewSource, file: ReviewFile, vocabulary: Vocabulary, on_empty: OnEmpty
) -> None:
    """Read one file of a source.

    Raises:
        DataError: If it cannot be used.
    """
    faults = Faults(file.path, "the reviews cannot be used")
    words = review_words if vocabulary == "word" else str.split
    for review in source.read((file,)):
        if on_empty == "error" and not words(review.text):
            faults.add(_EMPTY, review.place)
    faults.raise_all()


def tokenise_reviews(
    folder: Path,
    source: ReviewSource,
    splits: Sequence[str],
    splits_of: Callable[[Review], Sequence[str]],
    tokenizer: Tokenizer,
    labels: LabelVocabulary | None,
    limits: ReadingLimits,
) -> None:
    """Tokenise texts into a ``TokenisedCorpus`` for each split, unless that has been done.

    Their targets are ids of labels, without an end. Every time, it is said how many texts were
    left out or cut.

    Args:
        folder: What has the folders of the splits. It appears when it is complete, not before.
        source: What to read.
        splits: Names of the splits.
        splits_of: Returns the splits that a text belongs to.
        tokenizer: Of the texts.
        labels: Of the labels; None where they are not known. Then a text without a token stays, as
            a lone end of sequence: predictions are in the order of the lines.
        limits: What is read of a text.

    Raises:
        DataError: If the source cannot be used, or texts have no token and that is an error.
    """
    if not folder.is_dir():
        with appearing(folder) as partial:
            partial.mkdir()
            _write(partial, source, splits, splits_of, tokenizer, labels, limits)
    _report(folder, source, splits, limits)


class _SplitWriter:
    """Appends examples to the files of a ``TokenisedCorpus``.

    Args:
        folder: Where they are to be.
        has_target: Whether examples have labels.
        stack: What closes the files.
    """

    def __init__(self, folder: Path, has_target: bool, stack: ExitStack) -> None:
        folder.mkdir()
        self._folder = folder
        self.counts: dict[str, int | bool] = {
            **dict.fromkeys(("dropped", "truncated"), 0),
            "has_target": has_target,
        }
        self._write: Mapping[str, Callable[[NDArray[Any]], None]] = {
            f"{role}_{part}": stack.enter_context(row_writer(folder / f"{role}_{part}"))
            for role in ("source", "target")[: 1 + has_target]
            for part in ("tokens", "text")
        }

    def add(self, role: str, ids: Sequence[int], text: str) -> None:
        """Append a text, or the labels of one."""
        self._write[f"{role}_tokens"](np.asarray(ids, dtype=np.int32))
        self._write[f"{role}_text"](np.frombuffer(text.encode(), dtype=np.uint8))

    def finish(self) -> None:
        """Write down what was counted."""
        counts = json.dumps(self.counts)
        (self._folder / "counts.json").write_text(counts, encoding="utf-8")


def _write(
    folder: Path,
    source: ReviewSource,
    splits: Sequence[str],
    splits_of: Callable[[Review], Sequence[str]],
    tokenizer: Tokenizer,
    labels: LabelVocabulary | None,
    limits: ReadingLimits,
) -> None:
    faults = Faults(source.path, "the reviews cannot be used")
    with ExitStack() as stack:
        writers = {
            split: _SplitWriter(folder / split, labels is not None, stack) for split in splits
        }
        reviews_left = iter(source)
        while reviews := tuple(islice(reviews_left, _REVIEWS_AT_ONCE)):
            encoded = tokenizer.encode_batch([review.text for review in reviews])
            for review, whole in zip(reviews, encoded, strict=True):
                ids = keep_part(whole, limits.max_length, limits.keep)
                is_dropped = not ids and labels is not None
                if is_dropped and limits.on_empty == "error":
                    faults.add(_EMPTY, review.place)
                for writer in map(writers.__getitem__, splits_of(review)):
                    writer.counts["dropped"] += is_dropped
                    writer.counts["truncated"] += len(ids) < len(whole)
                    if not is_dropped:
                        writer.add("source", [*ids, EOS_ID], review.text)
                        if labels is not None:
                            text = label_text(review)
                            writer.add("target", labels.encode(text), text)
    faults.raise_all()
    for writer in writers.values():
        writer.finish()


@rank_zero_only
def _report(
    folder: Path, source: ReviewSource, splits: Sequence[str], limits: ReadingLimits
) -> None:
    for split in splits:
        corpus = TokenisedCorpus(folder / split)
        count = len(corpus) + corpus.dropped
        if corpus.dropped:
            _log.warning(
                "%s: %d of %d %s reviews left out, as they have no word (--data.on_empty).",
                source.path,
                corpus.dropped,
                count,
                split,
            )
        if corpus.truncated:
            part = "start and end" if limits.keep == "both" else limits.keep
            rank_zero_info(
                f"{source.path}: of {corpus.truncated} of {count} {split} reviews only the {part} "
                f"is read, {limits.max_length} tokens (--data.max_length, --data.keep)."
            )
