"""Parallel text for translation."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.base import (
    ResumableLoader,
    SequenceDataModule,
    SequenceDataset,
    cache_folder,
    option_problems,
    require_prepared,
)
from datamodules.samplers import BucketBatchSampler
from datamodules.text_files import ParallelText, TextFormat, find_text, text_exists
from datamodules.token_cache import (
    LengthLimits,
    OnTooLong,
    TokenisedCorpus,
    TokenisedSide,
    content_key,
    corpus_folder,
    tokenise,
    train_tokenizer,
)
from seq2seq.batches import Batch, TextInput
from seq2seq.errors import ConfigError, DataError, raise_together
from seq2seq.sequences import EOS_ID, pad_sequences
from seq2seq.tokenizer import SubwordTokenizer, TokenizerType

_SIDES = ("source", "target")


class TranslationExample(NamedTuple):
    """One sentence and its translation.

    Attributes:
        source: Ids ending in ``EOS_ID``, int64 ``(source,)``.
        target: The same of the target, ``(time,)``; None in prediction.
        position: Index in the corpus.
        reference: Target text; None where nothing is scored.
    """

    source: Tensor
    target: Tensor | None
    position: int
    reference: str | None


class TranslationDataset(SequenceDataset[TranslationExample]):
    """The examples of a tokenised corpus.

    Args:
        corpus: The corpus.
        tokenizers: Of the ``source`` and the ``target``, for sampling.
        limits: Length limits; they hold for sampled segmentations too.
        with_references: Whether to give the target text.
        sampling_alpha: Strength of subword regularisation; 0 for none.
        seed: Of the sampling.
    """

    def __init__(
        self,
        corpus: TokenisedCorpus,
        tokenizers: dict[str, SubwordTokenizer],
        limits: LengthLimits,
        with_references: bool = False,
        sampling_alpha: float = 0.0,
        seed: int = 1,
    ) -> None:
        super().__init__(seed)
        self.corpus = corpus
        self._tokenizers = tokenizers
        self._max_lengths = {
            "source": limits.max_source_length,
            "target": limits.max_target_length,
        }
        self._with_references = with_references
        self._sampling_alpha = sampling_alpha

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, index: int) -> TranslationExample:
        target = self.corpus.target
        return TranslationExample(
            source=self._ids("source", self.corpus.source, index),
            target=None if target is None else self._ids("target", target, index),
            position=index,
            reference=target.text.text(index) if target and self._with_references else None,
        )

    def _ids(self, role: str, side: TokenisedSide, index: int) -> Tensor:
        if not self._sampling_alpha:
            return torch.from_numpy(side.tokens[index].astype("int64"))
        sampling_seeds = self.generator(index).integers(1 << 32, size=len(_SIDES))
        ids = self._tokenizers[role].sample(
            side.text.text(index), self._sampling_alpha, int(sampling_seeds[_SIDES.index(role)])
        )
        return torch.tensor([*ids[: self._max_lengths[role] - 1], EOS_ID])


def collate(examples: list[TranslationExample]) -> Batch:
    """Return the examples as one batch, in their order."""
    targets = [example.target for example in examples if example.target is not None]
    references = [example.reference for example in examples if example.reference is not None]
    return Batch(
        inputs=TextInput(
            pad_sequences([example.source for example in examples]),
            torch.tensor([len(example.source) for example in examples]),
        ),
        target=pad_sequences(targets) if targets else None,
        index=torch.tensor([example.position for example in examples]),
        references=tuple((reference,) for reference in references),
    )


class TranslationDataModule(SequenceDataModule):
    """Sentences and their translations, from files.

    A split named ``train`` is read from ``train.en`` beside ``train.de``, from ``train.tsv``, or
    from ``train.jsonl``; each may end in ``.gz``.

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
        normalization: SentencePiece's rule, applied to the text first: ``identity``, ``nfkc`` or
            ``nmt_nfkc``; with ``_cf`` at the end, upper case is folded into lower case.
        source_tokenizer: Path of a SentencePiece model; null to train one on the training split.
        target_tokenizer: The same for the target; with one tokenizer for both, the same path.
        sampling_alpha: Subword regularisation in training, for a unigram tokenizer: how strongly
            likely segmentations are preferred (0.1 to 0.5 is usual); 0 for none.
        max_source_length: Largest number of source tokens, the end of the sentence included.
        max_target_length: Largest number of target tokens, the end of the sentence included.
        on_too_long: Whether longer training lines are dropped, truncated or an error. In the other
            splits they are truncated, and references stay whole.
        batch_tokens: Budget of a batch: rows times tokens of its longest side, padding included.
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
        normalization: str = "nmt_nfkc",
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
        self.normalization = normalization
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

    def train_dataloader(self) -> ResumableLoader[TranslationExample]:
        """Return the shuffled batches of the training split."""
        return self._bucket_loader("train")

    def val_dataloader(self) -> ResumableLoader[TranslationExample]:
        """Return the batches of the validation split, shortest first."""
        return self._bucket_loader("val")

    def test_dataloader(self) -> ResumableLoader[TranslationExample]:
        """Return the batches of the test split, shortest first."""
        return self._bucket_loader("test")

    def predict_dataloader(self) -> DataLoader[TranslationExample]:
        """Return the batches of the split to translate, in its order."""
        if self.splits["predict"] is None:
            raise ConfigError("There is nothing to translate: set --data.predict.")
        dataset = self._dataset("predict")
        return self.ordered_loader(dataset, self.eval_batch_size, collate)

    def _bucket_loader(self, role: str) -> ResumableLoader[TranslationExample]:
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
        stem = self.splits[role]
        assert stem is not None
        target = None if role == "predict" else self.target
        return find_text(self.root, stem, self.source, target, self._format(role))

    def _texts(self) -> Iterator[tuple[str, ParallelText]]:
        """Yield the splits that are there."""
        for role, stem in self.splits.items():
            target = None if role == "predict" else self.target
            if stem is not None and text_exists(
                self.root, stem, self.source, target, self._format(role)
            ):
                yield role, self._find(role)

    def _format(self, role: str) -> TextFormat:
        return "lines" if role == "predict" else self.format

    def _load_tokenizers(self, may_train: bool) -> dict[str, SubwordTokenizer]:
        if self.is_shared:
            shared = self._load_tokenizer("target", _SIDES, may_train)
            return dict.fromkeys(_SIDES, shared)
        return {role: self._load_tokenizer(role, (role,), may_train) for role in _SIDES}

    def _load_tokenizer(
        self, role: str, trained_on: tuple[str, ...], may_train: bool
    ) -> SubwordTokenizer:
        vocab_size = self.vocab_sizes[role]
        option = "source_vocab_size" if trained_on == ("source",) else "vocab_size"
        if given := self.given_tokenizers[role]:
            tokenizer = SubwordTokenizer.from_file(given)
            if tokenizer.vocab_size != vocab_size:
                raise DataError(
                    f"{given} has {tokenizer.vocab_size} pieces, not {vocab_size}. "
                    f"Set --data.{option} to {tokenizer.vocab_size}."
                )
            return tokenizer
        text = self._find("train")
        settings = (vocab_size, self.tokenizer_type, self.normalization)
        key = content_key(text.paths, text.source, text.target, trained_on, *settings)
        path = self._cache() / f"tokenizer-{key}.model"
        if may_train:
            train_tokenizer(path, text, trained_on, *settings)
        require_prepared(path)
        return SubwordTokenizer.from_file(path)

    def _cache(self) -> Path:
        return cache_folder(self.root, self.cache_dir)

    def _corpus_folder(
        self, role: str, text: ParallelText, tokenizers: dict[str, SubwordTokenizer]
    ) -> Path:
        return corpus_folder(self._cache(), text, tokenizers, self.limits[role])

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
