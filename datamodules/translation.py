"""Parallel text for translation."""

from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from torch.utils.data import DataLoader

from datamodules.base import (
    Reading,
    ResumableLoader,
    SequenceDataModule,
    Split,
    option_problems,
)
from datamodules.cache import cache_folder, require_prepared
from datamodules.samplers import BucketBatchSampler
from datamodules.text_files import Pair, ParallelText, TextFormat, find_text, text_exists
from datamodules.token_cache import LengthLimits, OnTooLong, corpus_folder, tokenise
from datamodules.token_corpus import TokenisedCorpus
from datamodules.tokenizer_cache import (
    TokenizerSettings,
    load_given_tokenizer,
    load_trained_tokenizer,
    tokenizer_path,
    train_tokenizer,
)
from datamodules.translation_dataset import (
    SIDES,
    TranslationDataset,
    TranslationExample,
    collate,
)
from seq2seq.errors import ConfigError, DataError, raise_together
from seq2seq.sequences import EOS_ID
from seq2seq.tokenizers import Normalization, SubwordTokenizer, TokenizerType


class TranslationDataModule(SequenceDataModule):
    """Sentences and their translations, from files.

    A split named ``train`` is read from ``train.en`` beside ``train.de``, from ``train.tsv``, or
    from ``train.jsonl``; each may end in ``.gz``. TSV has the source in the first column and the
    target in the second, or a first line that names its columns; quotes mean nothing in it. JSONL
    has an object on each line.

    Trained tokenizers are found again by the text they were trained on, so testing needs the
    training split, too. Where it is not at hand, give ``tokenizer-*.model`` from the cache folder
    as ``source_tokenizer`` and ``target_tokenizer``.

    Where several processes train, the trainer needs ``use_distributed_sampler=False``, as the
    command line sets it: the batches are divided among them here.

    Args:
        root: Folder of the files.
        source: Language to translate from: the ending of a file, or the name of a column or key.
        target: Language to translate into.
        train: Name of the training split.
        val: Name of the validation split.
        test: Name of the test split.
        predict: Name of a split to translate, of which only ``<predict>.<source>`` is read.
        format: ``lines``, ``tsv``, ``jsonl``, or ``auto`` to take what is there.
        vocab_size: Number of target subwords, or of both languages when they share them.
        source_vocab_size: Number of source subwords; null for one tokenizer for both languages.
        tokenizer_type: How text is cut into tokens.
        normalization: SentencePiece's rule, applied to the text first; with ``_cf`` at the end,
            upper case is folded into lower case.
        source_tokenizer: Path of a SentencePiece model; null to train one on the training split.
        target_tokenizer: The same for the target; with one tokenizer for both, the same path.
        sampling_alpha: Subword regularisation in training, for a unigram tokenizer: how strongly
            likely segmentations are preferred (0.2 to 0.5 is usual); 0 for none. Batches are
            measured without it: they hold about a third more tokens at 0.2, 3 % more at 0.5.
        max_source_length: Largest number of source tokens, the end of the sentence included.
        max_target_length: Largest number of target tokens, the end of the sentence included.
        on_too_long: Whether longer training lines are dropped, truncated or an error. In the other
            splits they are truncated, and references stay whole.
        batch_tokens: Budget of a batch: rows times tokens of its longest side, padding included. A
            longer line has a batch of its own.
        batch_size: Largest number of sentences in a training batch; null for no limit.
        eval_batch_size: Largest number of sentences in any other batch.
        cache_dir: Folder for tokenizers and tokenised text; null for ``.seq2seq_cache`` in
            ``root``, or in the user's cache folder where ``root`` cannot be written.
        num_workers: Number of processes that prepare batches; 0 for the main one.
        seed: Of the order of the batches, and of subword regularisation.

    Attributes:
        tokenizers: Those of the ``source`` and the ``target``; known after ``setup``.

    Raises:
        ConfigError: If options cannot work, alone or together; all of them are named.
    """

    def __init__(
        self,
        root: str,
        source: str = "en",
        target: str = "de",
        train: str = "train",
        val: str = "val",
        test: str = "test",
        predict: str | None = None,
        format: TextFormat = "auto",  # noqa: A002  # the name of the option
        vocab_size: int = 8000,
        source_vocab_size: int | None = None,
        tokenizer_type: TokenizerType = "unigram",
        normalization: Normalization = "nmt_nfkc",
        source_tokenizer: str | None = None,
        target_tokenizer: str | None = None,
        sampling_alpha: float = 0.0,
        max_source_length: int = 256,
        max_target_length: int = 256,
        on_too_long: OnTooLong = "truncate",
        batch_tokens: int = 4096,
        batch_size: int | None = None,
        eval_batch_size: int = 128,
        cache_dir: str | None = None,
        num_workers: int = 0,
        seed: int = 1,
    ) -> None:
        super().__init__(num_workers, seed)
        self.root = Path(root)
        self.source = source
        self.target = target
        self.splits = {"train": train, "val": val, "test": test, "predict": predict}
        self.format: TextFormat = format
        self.vocab_sizes = {
            "source": vocab_size if source_vocab_size is None else source_vocab_size,
            "target": vocab_size,
        }
        self.is_shared = source_vocab_size is None
        self.tokenizer_type: TokenizerType = tokenizer_type
        self.normalization: Normalization = normalization
        self.given_tokenizers = {"source": source_tokenizer, "target": target_tokenizer}
        self.sampling_alpha = sampling_alpha
        self.batch_tokens = batch_tokens
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.cache_dir = cache_dir
        train_limits = LengthLimits(max_source_length, max_target_length, on_too_long)
        eval_limits = LengthLimits(max_source_length, max_target_length, "truncate")
        self.limits = dict.fromkeys(self.splits, eval_limits) | {"train": train_limits}
        self.tokenizers: dict[str, SubwordTokenizer] = {}
        self._corpora: dict[str, TokenisedCorpus] = {}
        raise_together(list(self._problems()), ConfigError, "The data options cannot work:")

    def prepare_data(self) -> None:
        """Train the tokenizers on the training split, and tokenise every split that is there.

        Raises:
            DataError: If a file cannot be used.
        """
        tokenizers = self._load_tokenizers(may_train=True)
        for role, text in self._texts():
            folder = self._corpus_folder(role, text, tokenizers)
            tokenise(folder, text, tokenizers, self.limits[role])

    def setup(self, stage: str) -> None:  # noqa: ARG002  # mapping a file costs nothing
        """Load the tokenizers, and map every split that is there.

        Raises:
            DataError: If what ``prepare_data`` makes is not there.
        """
        self.tokenizers = self._load_tokenizers(may_train=False)
        self._corpora = {}
        for role, text in self._texts():
            folder = self._corpus_folder(role, text, self.tokenizers)
            require_prepared(folder)
            self._corpora[role] = TokenisedCorpus(folder)

    def split_loader(self, role: Split) -> ResumableLoader[TranslationExample]:
        """Return the batches of a split: shuffled in training, else shortest first."""
        dataset = self._dataset(role)
        is_training = role == "train"
        sampler = BucketBatchSampler(
            dataset.corpus.lengths,
            max_tokens=self.batch_tokens,
            max_sentences=self.batch_size if is_training else self.eval_batch_size,
            shuffle=is_training,
            seed=self.seed,
        )
        return self.bucket_loader(dataset, sampler, collate)

    def prediction_files(self) -> tuple[Path, ...]:
        """Return the file of the split to translate.

        Raises:
            ConfigError: If none is given.
            DataError: If it is not there.
        """
        if self.splits["predict"] is None:
            raise ConfigError("There is nothing to translate: set --data.predict.")
        return self._find("predict").paths

    def predict_dataloader(self) -> DataLoader[TranslationExample]:
        """Return the batches of the split to translate, in its order."""
        self.prediction_files()  # says what is missing
        dataset = self._dataset("predict")
        return self.ordered_loader(dataset, self.eval_batch_size, collate)

    def pairs(self, split: Literal["train", "val", "test"]) -> Iterator[Pair]:
        """Yield the text of a split as it stands in the files, long lines included.

        Raises:
            DataError: If a file cannot be used.
        """
        yield from self._find(split)

    def iter_readings(self) -> Iterator[Reading]:
        """Yield the text of every split that is there; line-aligned files are one reading.

        Raises:
            DataError: If there is none, or a file has no partner.
        """
        texts = [text for _, text in self._texts()] or [self._find("train")]
        for text in texts:
            yield Reading(" and ".join(map(str, text.paths)), partial(deque, text, maxlen=0))

    def _dataset(self, role: str) -> TranslationDataset:
        if role not in self._corpora:
            self._find(role)  # says what is missing
            raise DataError(f"The {role} split appeared after setup. Start again.")
        return TranslationDataset(
            self._corpora[role],
            self.tokenizers,
            self.limits[role],
            with_references=role in ("val", "test"),
            sampling_alpha=self.sampling_alpha if role == "train" else 0.0,
            seed=self.seed,
        )

    def _find(self, role: str) -> ParallelText:
        return find_text(self.root, *self._file_choice(role))

    def _is_there(self, role: str) -> bool:
        return text_exists(self.root, *self._file_choice(role))

    def _file_choice(self, role: str) -> tuple[str, str, str | None, TextFormat]:
        stem = self.splits[role]
        assert stem is not None
        if role == "predict":
            return stem, self.source, None, "lines"
        return stem, self.source, self.target, self.format

    def _texts(self) -> Iterator[tuple[str, ParallelText]]:
        """Yield the splits that are there."""
        for role, stem in self.splits.items():
            if stem is not None and self._is_there(role):
                yield role, self._find(role)

    def _load_tokenizers(self, may_train: bool) -> dict[str, SubwordTokenizer]:
        if self.is_shared:
            shared = self._load_tokenizer("target", SIDES, may_train)
            return dict.fromkeys(SIDES, shared)
        return {role: self._load_tokenizer(role, (role,), may_train) for role in SIDES}

    def _load_tokenizer(
        self, role: str, trained_on: tuple[str, ...], may_train: bool
    ) -> SubwordTokenizer:
        option = "source_vocab_size" if trained_on == ("source",) else "vocab_size"
        settings = TokenizerSettings(
            self.vocab_sizes[role], f"--data.{option}", self.tokenizer_type, self.normalization
        )
        if given := self.given_tokenizers[role]:
            tokenizer = load_given_tokenizer(
                given, settings.vocab_size, settings.vocab_size_option, SubwordTokenizer.from_file
            )
            if self.sampling_alpha and not tokenizer.can_sample:
                raise DataError(
                    f"{given} is not a unigram model: it has one segmentation of a text, and "
                    "none to sample. Set --data.sampling_alpha=0."
                )
            return tokenizer
        text = self._training_text()
        selection = (text.source, text.target, trained_on)
        path = tokenizer_path(self.cache_path(), text.paths, selection, settings)
        if may_train:
            sentences = (getattr(pair, side) for pair in text for side in trained_on)
            train_tokenizer(path, sentences, settings, origin=" and ".join(map(str, text.paths)))
        return load_trained_tokenizer(path, SubwordTokenizer.from_file)

    def _training_text(self) -> ParallelText:
        try:
            return self._find("train")
        except DataError as error:
            if self._is_there("train") or not self.root.is_dir():
                raise
            raise DataError(
                f"{error} To do without the training split, give the tokenizer that was trained "
                "on it: --data.source_tokenizer and --data.target_tokenizer."
            ) from error

    def cache_path(self) -> Path:
        """Return the folder of what ``prepare_data`` makes."""
        return cache_folder(self.root, self.cache_dir)

    def _corpus_folder(
        self, role: str, text: ParallelText, tokenizers: dict[str, SubwordTokenizer]
    ) -> Path:
        return corpus_folder(self.cache_path(), text, tokenizers, self.limits[role])

    def _problems(self) -> Iterator[str]:
        """Yield what is wrong with the options, one sentence each."""
        limits = self.limits["train"]
        smallest = {
            "vocab_size": (self.vocab_sizes["target"], EOS_ID + 2),
            "source_vocab_size": (self.vocab_sizes["source"], EOS_ID + 2),
            "max_source_length": (limits.max_source_length, 1),
            "max_target_length": (limits.max_target_length, 1),
            "batch_tokens": (self.batch_tokens, 1),
            "batch_size": (1 if self.batch_size is None else self.batch_size, 1),
            "eval_batch_size": (self.eval_batch_size, 1),
            "num_workers": (self.num_workers, 0),
            "seed": (self.seed, 0),
            "sampling_alpha": (self.sampling_alpha, 0),
        }
        if self.is_shared:
            del smallest["source_vocab_size"]
        choices = {
            "format": (self.format, TextFormat),
            "tokenizer_type": (self.tokenizer_type, TokenizerType),
            "normalization": (self.normalization, Normalization),
            "on_too_long": (limits.on_too_long, OnTooLong),
        }
        yield from option_problems(smallest, choices)
        if self.source == self.target:
            yield f"--data.source and --data.target are both {self.source!r}: name two languages."
        if self.sampling_alpha > 0 and self.tokenizer_type != "unigram":
            yield (
                f"--data.sampling_alpha has no meaning with --data.tokenizer_type="
                f"{self.tokenizer_type}: choose unigram, or set it to 0."
            )
        if self.is_shared and len(set(self.given_tokenizers.values())) > 1:
            yield (
                "--data.source_tokenizer and --data.target_tokenizer differ: give one path for "
                "both, or set --data.source_vocab_size to have a tokenizer for each language."
            )
