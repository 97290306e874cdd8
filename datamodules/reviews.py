"""Texts and their labels."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.base import (
    Reading,
    ResumableLoader,
    SequenceDataModule,
    Split,
    option_problems,
)
from datamodules.cache import cache_folder, content_key, require_prepared
from datamodules.review_cache import (
    OnEmpty,
    ReadingLimits,
    check_reviews,
    tokenise_reviews,
    train_vocabulary,
)
from datamodules.review_dataset import ReviewDataset, ReviewExample, collate
from datamodules.review_files import SPLITS, ReviewFormat, ReviewSource, find_reviews, find_texts
from datamodules.review_formats import Layout
from datamodules.review_splits import (
    Survey,
    check_labels,
    label_vocabulary,
    load_survey,
    make_survey,
)
from datamodules.samplers import BucketBatchSampler
from datamodules.token_corpus import TokenisedCorpus
from datamodules.tokenizer_cache import Vocabulary, load_trained_tokenizer
from datamodules.word_vocabulary import report_unused
from seq2seq.errors import ConfigError, DataError, raise_together
from seq2seq.sequences import EOS_ID
from seq2seq.tokenizers import (
    FIRST_LABEL_ID,
    LABEL_SEPARATOR,
    LabelVocabulary,
    Tokenizer,
    tokenizer_from_file,
)
from seq2seq.truncation import Keep
from seq2seq.words import REVIEW_TOKENIZER


class ReviewDataModule(SequenceDataModule):
    """Texts with one label each, or the same number of them, from files.

    They are read from a folder per class with a text file for each review (``train/pos/1.txt``, as
    Stanford has IMDB), from a table or JSONL, of all splits or one for each, or from an ``.npz`` of
    number sequences; any but the last may end in ``.gz``. Where the source names no validation
    split, a share of the training reviews of each class is drawn for it.

    Texts are tokenised once, into the cache folder, and read from there: memory does not grow with
    the corpus. Where several processes train, the trainer needs ``use_distributed_sampler=False``,
    as the command line sets it: the batches are divided among them here.

    Args:
        source: File or folder of the reviews.
        num_classes: Number of labels of the training reviews.
        format: ``folders``, ``table`` (CSV or TSV), ``jsonl``, ``npz``, or ``auto`` to go by the
            names.
        text_column: Column or key of the text.
        label_column: Column or key of the label.
        split_column: Column or key of the split, in a source that has all splits in one file; null
            for ``split`` where there is one.
        labels: What the labels of the source are called in the output, such as
            ``{0: negative, 1: positive}``; class folders that it does not name are left out. Null
            to leave them as they are; of class folders, only ``unsup`` is then left out.
        label_separator: What is between the labels of a review with several; empty for nothing.
        label_steps: Labels of each review.
        train: Name of the training split: of its file or folder, or in the column of the split.
        val: Name of the validation split.
        test: Name of the test split.
        val_share: Share of the training reviews that becomes validation, where the source names no
            such split.
        test_share: Likewise for the test.
        train_on_val: Train on the validation reviews, too, when all choices have been made on them.
            Validation then shows nothing any more: take the last checkpoint.
        predict: File for ``seq2seq predict``, with a text on each line; or a table or JSONL, of
            which only the text is read.
        vocabulary: ``word`` (lower case, without markup), or a kind of SentencePiece model:
            ``unigram``, ``bpe``, ``char``. It is made of the training reviews alone.
        vocab_size: Most words, or number of subwords, four special ones included.
        max_length: Most words or subwords of a review that are read.
        keep: Which part of a longer review is read: its ``start``, its ``end``, or ``both``, half
            of ``max_length`` each, without the middle.
        on_empty: Whether a review without a word is an ``error``, or ``drop`` leaves it out.
        batch_size: Number of reviews in a training batch; they are of similar length.
        eval_batch_size: Number of reviews in any other batch.
        cache_dir: Folder for vocabularies and tokenised text; null for ``.seq2seq_cache`` beside
            the source, or in the user's cache folder where that cannot be written.
        num_workers: Number of processes that prepare batches; 0 for the main one.
        seed: Of the splits, and of the order of the batches.

    Attributes:
        tokenizers: Those of the ``source`` and of the ``target``, which are labels; known after
            ``setup``.

    Raises:
        ConfigError: If options cannot work, alone or together; all of them are named.
    """

    def __init__(
        self,
        source: str,
        num_classes: int,
        format: ReviewFormat = "auto",  # noqa: A002  # the name of the option
        text_column: str = "text",
        label_column: str = "label",
        split_column: str | None = None,
        labels: dict[str, str] | None = None,
        label_separator: str = LABEL_SEPARATOR,
        label_steps: int = 1,
        train: str = "train",
        val: str = "val",
        test: str = "test",
        val_share: float = 0.1,
        test_share: float = 0.0,
        train_on_val: bool = False,
        predict: str | None = None,
        vocabulary: Vocabulary = "word",
        vocab_size: int = 10_000,
        max_length: int = 400,
        keep: Keep = "end",
        on_empty: OnEmpty = "error",
        batch_size: int = 32,
        eval_batch_size: int = 128,
        cache_dir: str | None = None,
        num_workers: int = 0,
        seed: int = 1,
    ) -> None:
        super().__init__(num_workers, seed)
        self.source = Path(source)
        self.num_classes = num_classes
        self.format: ReviewFormat = format
        self.layout = Layout(
            text_column,
            label_column,
            split_column,
            label_separator,
            # YAML has numbers for keys, whatever the type says.
            label_names={str(label): name for label, name in (labels or {}).items()},
            split_names={"train": train, "val": val, "test": test},
        )
        self.label_steps = label_steps
        self.shares = {"val": val_share, "test": test_share}
        self.train_on_val = train_on_val
        self.predict = predict
        self.vocabulary: Vocabulary = vocabulary
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.keep: Keep = keep
        self.on_empty: OnEmpty = on_empty
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.cache_dir = cache_dir
        self.tokenizers: dict[str, Tokenizer] = {}
        self._corpora: dict[str, TokenisedCorpus] = {}
        raise_together(list(self._problems()), ConfigError, "The data options cannot work:")

    def prepare_data(self) -> None:
        """Check the source, make the vocabulary, and tokenise every split.

        Raises:
            DataError: If the source cannot be used, or has another number of labels than
                ``num_classes``.
        """
        source, survey, tokenizers = self._read(may_prepare=True)
        report_unused(tokenizers["source"], str(self.source))
        labels = tokenizers["target"]
        assert isinstance(labels, LabelVocabulary)
        tokenise_reviews(
            self._corpora_folder(source, survey, tokenizers),
            source,
            SPLITS,
            partial(survey.uses_of, train_on_val=self.train_on_val),
            tokenizers["source"],
            labels,
            self._limits,
        )
        if self.predict is not None:
            texts = self._find_texts(self.predict)
            tokenise_reviews(
                self._texts_folder(texts, tokenizers),
                texts,
                ("predict",),
                lambda _: ("predict",),
                tokenizers["source"],
                None,
                self._limits,
            )

    def setup(self, stage: str) -> None:  # noqa: ARG002  # mapping a file costs nothing
        """Load the vocabularies, and map every split.

        Raises:
            DataError: If what ``prepare_data`` makes is not there.
        """
        source, survey, self.tokenizers = self._read(may_prepare=False)
        folders = dict.fromkeys(SPLITS, self._corpora_folder(source, survey, self.tokenizers))
        if self.predict is not None:
            folders["predict"] = self._texts_folder(self._find_texts(self.predict), self.tokenizers)
        self._corpora = {}
        for split, folder in folders.items():
            require_prepared(folder)
            self._corpora[split] = TokenisedCorpus(folder / split)

    def split_loader(self, role: Split) -> ResumableLoader[ReviewExample]:
        """Return the batches of a split: shuffled in training, else shortest first."""
        dataset = ReviewDataset(self._corpora[role])
        if not len(dataset):
            raise DataError(
                f"{self.source}: the {role} split has no reviews. Name some in the source, or "
                f"raise --data.{role}_share."
            )
        is_training = role == "train"
        batch_size = self.batch_size if is_training else self.eval_batch_size
        sampler = BucketBatchSampler(
            dataset.corpus.source.tokens.lengths,
            max_tokens=batch_size * (self.max_length + 1),  # the number of reviews decides
            max_sentences=batch_size,
            shuffle=is_training,
            seed=self.seed,
        )
        return self.bucket_loader(dataset, sampler, collate)

    def prediction_files(self) -> tuple[Path, ...]:
        """Return the file ``predict``; a ``ConfigError`` says so if none is given."""
        if self.predict is None:
            raise ConfigError("There is nothing to classify: set --data.predict.")
        return (Path(self.predict),)

    def predict_dataloader(self) -> DataLoader[ReviewExample]:
        """Return the batches of the texts of ``predict``, in their order."""
        self.prediction_files()  # says what is missing
        dataset = ReviewDataset(self._corpora["predict"])
        return self.ordered_loader(dataset, self.eval_batch_size, collate)

    def look_up(self, role: Literal["train", "val", "test", "predict"], index: int) -> str:
        """Return a text of a split as it stands in the source, on one line."""
        return self._corpora[role].source.text.text(index)

    def label_counts(self) -> Tensor:
        """Return how often each class occurs in the training split, int64 ``(classes,)``."""
        target = self._corpora["train"].target
        assert target is not None
        ids = np.concatenate([target.tokens[row] for row in range(len(target.tokens))])
        return torch.from_numpy(np.bincount(ids - FIRST_LABEL_ID, minlength=self.num_classes))

    def iter_readings(self) -> Iterator[Reading]:
        """Yield every file of the source, what their labels are together, and that of ``predict``.

        Raises:
            DataError: If they cannot be found.
        """
        source = find_reviews(self.source, self.layout, self.format)
        for file in source.files:
            check = partial(check_reviews, source, file, self.vocabulary, self.on_empty)
            yield Reading(str(file.path), check)
        check = partial(check_labels, source, self.shares, self.label_steps, self.num_classes)
        yield Reading(f"{self.source} (labels)", check)
        if self.predict is not None:
            texts = self._find_texts(self.predict)
            yield Reading(str(texts.path), partial(deque, texts, maxlen=0))

    def _read(self, may_prepare: bool) -> tuple[ReviewSource, Survey, dict[str, Tokenizer]]:
        """Return the reviews, what they have in common, and the vocabularies."""
        source = find_reviews(self.source, self.layout, self.format)
        if self.vocabulary != "word" and any(file.kind == "npz" for file in source.files):
            raise ConfigError(f"{self.source}: has numbers of words: set --data.vocabulary=word.")
        key = content_key((), source.key(), self.shares, self.label_steps, self.seed)
        survey_path = self.cache_path() / f"reviews-{key}.json"
        if may_prepare:
            make_survey(survey_path, source, self.shares, self.label_steps, self.seed)
        survey = load_survey(survey_path)
        labels = label_vocabulary(self.source, survey, self.num_classes)
        key = content_key((), key, self.vocabulary, self.vocab_size, REVIEW_TOKENIZER)
        vocabulary_path = self.cache_path() / f"tokenizer-{key}.model"
        if may_prepare:
            texts = (review.text for review in source if survey.split_of(review) == "train")
            origin = str(self.source)
            train_vocabulary(vocabulary_path, texts, self.vocabulary, self.vocab_size, origin)
        words = load_trained_tokenizer(vocabulary_path, tokenizer_from_file)
        return source, survey, {"source": words, "target": labels}

    def _corpora_folder(
        self, source: ReviewSource, survey: Survey, tokenizers: dict[str, Tokenizer]
    ) -> Path:
        fingerprints = [tokenizers[role].fingerprint for role in ("source", "target")]
        options = (survey, fingerprints, self._limits, self.train_on_val)
        return self.cache_path() / f"corpus-{content_key((), source.key(), *options)}"

    def _texts_folder(self, texts: ReviewSource, tokenizers: dict[str, Tokenizer]) -> Path:
        options = (tokenizers["source"].fingerprint, self._limits)
        return self.cache_path() / f"corpus-{content_key((), texts.key(), *options)}"

    def _find_texts(self, path: str) -> ReviewSource:
        return find_texts(Path(path), replace(self.layout, label_column=None, split_column=None))

    @property
    def _limits(self) -> ReadingLimits:
        return ReadingLimits(self.max_length, self.keep, self.on_empty)

    def cache_path(self) -> Path:
        """Return the folder of what ``prepare_data`` makes."""
        beside = self.source if self.source.is_dir() else self.source.parent
        return cache_folder(beside, self.cache_dir)

    def _problems(self) -> Iterator[str]:
        """Yield what is wrong with the options, one sentence each."""
        smallest = {
            "num_classes": (self.num_classes, 2),
            "label_steps": (self.label_steps, 1),
            "val_share": (self.shares["val"], 0),
            "test_share": (self.shares["test"], 0),
            "vocab_size": (self.vocab_size, EOS_ID + 2),
            "max_length": (self.max_length, 1),
            "batch_size": (self.batch_size, 1),
            "eval_batch_size": (self.eval_batch_size, 1),
            "num_workers": (self.num_workers, 0),
            "seed": (self.seed, 0),
        }
        choices = {
            "format": (self.format, ReviewFormat),
            "vocabulary": (self.vocabulary, Vocabulary),
            "keep": (self.keep, Keep),
            "on_empty": (self.on_empty, OnEmpty),
        }
        yield from option_problems(smallest, choices)
        if sum(self.shares.values()) >= 1:
            yield "--data.val_share and --data.test_share leave nothing to train on: lower them."
        names = list(self.layout.split_names.values())
        if len(set(names)) < len(names):
            yield (
                f"--data.train, --data.val and --data.test are {', '.join(map(repr, names))}: give "
                "each split a name of its own."
            )
