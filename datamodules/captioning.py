"""Pictures and their captions."""

from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter
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
from datamodules.cache import cache_folder
from datamodules.caption_dataset import (
    CaptionDataset,
    CaptionExample,
    CaptionStyle,
    EncodedCaptions,
    PictureDataset,
    PictureFiles,
    collate,
)
from datamodules.caption_files import CaptionedPicture, CaptionFormat
from datamodules.caption_sources import CaptionFiles, CaptionShards, Splits, source_problems
from datamodules.caption_vocabulary import VocabularyOptions, caption_tokenizer
from datamodules.picture_check import OnBadPicture, check_pictures
from datamodules.shard_captions import feature_source, picture_source
from datamodules.shard_plan import ShardSource, refuse_shards
from datamodules.shard_sampler import batch_sampler
from datamodules.shard_table import Mapped
from datamodules.shards import shard_problems
from datamodules.tokenizer_cache import Vocabulary
from seq2seq.errors import ConfigError, DataError, raise_together
from seq2seq.feature_cache import FeatureNetwork
from seq2seq.pictures import PictureGeometry, find_pictures
from seq2seq.sequences import EOS_ID
from seq2seq.tokenizers import Tokenizer

__all__ = ["CaptionDataModule", "CaptionSource"]

CaptionSource = Literal[CaptionFormat, "shards"]


class CaptionDataModule(SequenceDataModule):
    """Pictures with one or more captions each, from files.

    Captions are read from one file (Karpathy's JSON, COCO's captions JSON, Flickr's token file,
    CSV or TSV with the columns ``image,caption[,split]``, or JSONL), or from a file for each split.
    Where one file names no splits, the pictures are divided by ``val_share`` and ``test_share``;
    no picture is ever in two splits. Or captions, pictures and splits are in shards, which
    ``seq2seq-prepare`` has written.

    Before the first training every picture is decoded once, so that none ends a run later.

    Args:
        captions: Caption file: of all splits, or of training where ``val_captions`` is given. For
            ``shards``, their folder or URL.
        images: Folder of the pictures; null for ``shards``, which have them.
        val_captions: Caption file of validation, where it has one of its own.
        test_captions: Caption file of the test.
        val_images: Folder of the pictures of ``val_captions``; null for ``images``.
        test_images: Folder of the pictures of ``test_captions``; null for ``images``.
        format: Format of the caption files; ``auto`` goes by their name and content. ``shards``
            have the splits of the recipe that they were written with, and only good pictures; or,
            with ``cache_features``, features of them.
        train: Name of the training split in the file; several may be joined by ``+``.
        val: Name of the validation split.
        test: Name of the test split.
        val_share: Share of the pictures for validation, where the file names no splits.
        test_share: The same for the test.
        predict: Folder of pictures for ``seq2seq predict``.
        vocab_size: Number of words or subwords, four special ones included.
        vocabulary: ``word``, or a kind of SentencePiece model: ``unigram``, ``bpe``, ``char``.
        minimum_count: How often a word must occur in the training captions to be in a ``word``
            vocabulary.
        caption_style: ``plain`` learns lower case without punctuation, as the metrics see it;
            ``raw`` learns captions as they stand in the file.
        tokenizer: Path of a SentencePiece model or word vocabulary; null to make one of the
            training captions.
        max_caption_length: Largest number of tokens of a caption, its end included; longer ones
            are cut off.
        captions_per_picture: How many captions of each picture an epoch has, chosen at random;
            null for all of them.
        flip: Mirror every second picture in training, chosen at random; only pictures whose
            captions name neither left nor right. Features in shards must have been written with
            it.
        cache_features: Let a frozen network see each picture only once, and train on what it made
            of them; that is kept in the cache folder, or comes with the shards. These have to be
            of the same network, and there is no picture to draw attention on.
        on_bad_picture: Whether a picture that cannot be decoded is an ``error``, or goes to
            ``quarantine``: it is left out, and listed in ``pictures_quarantine.csv`` in the cache
            folder. In ``seq2seq predict`` its line says why.
        max_bad_share: Largest share of bad pictures that ``quarantine`` puts up with.
        shard_window: Out of how many shards batches are mixed, which are then read one after the
            other; null for all of them, as files are.
        shard_cache_gb: Room in the cache folder for shards from a URL, 10^9 bytes.
        batch_size: Number of pictures in a training batch.
        eval_batch_size: Number of pictures in any other batch.
        cache_dir: Folder for vocabularies, features and the list of bad pictures; null for
            ``.seq2seq_cache`` beside the caption file, or in the user's cache folder where that
            cannot be written.
        num_workers: Number of processes that prepare batches; 0 for the main one.
        seed: Of the splits, the order of the batches, and random choices in training.

    Attributes:
        tokenizers: That of the ``target``; known after ``setup``.

    Raises:
        ConfigError: If options cannot work, alone or together; all of them are named.
    """

    _source: CaptionFiles | CaptionShards

    def __init__(
        self,
        captions: str,
        images: str | None = None,
        val_captions: str | None = None,
        test_captions: str | None = None,
        val_images: str | None = None,
        test_images: str | None = None,
        format: CaptionSource = "auto",  # noqa: A002  # the name of the option
        train: str = "train",
        val: str = "val",
        test: str = "test",
        val_share: float = 0.1,
        test_share: float = 0.1,
        predict: str | None = None,
        vocab_size: int = 8000,
        vocabulary: Vocabulary = "unigram",
        minimum_count: int = 1,
        caption_style: CaptionStyle = "plain",
        tokenizer: str | None = None,
        max_caption_length: int = 50,
        captions_per_picture: int | None = None,
        flip: bool = False,
        cache_features: bool = False,
        on_bad_picture: OnBadPicture = "error",
        max_bad_share: float = 0.01,
        shard_window: int | None = None,
        shard_cache_gb: float = 20.0,
        batch_size: int = 32,
        eval_batch_size: int = 64,
        cache_dir: str | None = None,
        num_workers: int = 0,
        seed: int = 1,
    ) -> None:
        super().__init__(num_workers, seed)
        self.captions = captions
        self.images = images
        folder = images or ""
        self.files = {
            "train": (Path(captions), Path(folder)),
            "val": (Path(val_captions or captions), Path(val_images or folder)),
            "test": (Path(test_captions or captions), Path(test_images or folder)),
        }
        self.format: CaptionSource = format
        self.split_names = {"train": train, "val": val, "test": test}
        self.shares = {"val": val_share, "test": test_share}
        self.predict = predict
        self.vocabulary_options = VocabularyOptions(
            vocabulary, vocab_size, minimum_count, caption_style, tokenizer
        )
        self.max_caption_length = max_caption_length
        self.captions_per_picture = captions_per_picture
        self.flip = flip
        self.cache_features = cache_features
        self.on_bad_picture: OnBadPicture = on_bad_picture
        self.max_bad_share = max_bad_share
        self.shard_window = shard_window
        self.shard_cache_gb = shard_cache_gb
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.cache_dir = cache_dir
        self.tokenizers: dict[str, Tokenizer] = {}
        self._splits: Splits = {}
        self._geometry = PictureGeometry()
        self._network: FeatureNetwork | None = None
        self._must_mix = False
        raise_together(list(self._problems()), ConfigError, "The data options cannot work:")

    def prepare_data(self) -> None:
        """Decode every picture once, and make the vocabulary.

        Raises:
            ConfigError: If shards have other things than the options ask for.
            DataError: If a file cannot be used.
        """
        source, cache = self._read(), self.cache_path()
        if source.unchecked:
            check_pictures(
                source.unchecked,
                cache,
                policy=self.on_bad_picture,
                max_bad_share=self.max_bad_share,
                workers=max(2, self.num_workers),
                quarantine_file=cache / "pictures_quarantine.csv",
            )
        self._load_tokenizer(source, may_train=True)

    def setup(self, stage: str) -> None:
        """Load captions and vocabulary.

        Raises:
            ConfigError: If shards have other things than the options ask for.
            DataError: If what ``prepare_data`` makes is not there.
        """
        del stage
        self._source = self._read()
        self.tokenizers = {"target": self._load_tokenizer(self._source, may_train=False)}
        self._splits = self._source.good_splits()

    def show_to(
        self,
        geometry: PictureGeometry,
        network: FeatureNetwork | None,
        *,
        must_mix: bool = False,
    ) -> None:
        """Prepare pictures as a network wants them.

        Args:
            geometry: How they become squares.
            network: What gives features of pictures; None to give the pictures themselves.
            must_mix: Whether training batches must not be of pictures with like captions.
        """
        self._geometry = geometry
        self._must_mix = must_mix
        self._network = network

    def split_loader(self, role: Split) -> ResumableLoader[CaptionExample]:
        """Return the batches of a split, shuffled in training."""
        is_training = role == "train"
        pictures = self._pictures(role)
        style = self.vocabulary_options.caption_style
        tokens = EncodedCaptions(
            pictures, self.tokenizers["target"], style, self.max_caption_length
        )
        views = partial(self._source.views, pictures, self._geometry, self._network)
        dataset = CaptionDataset(
            views(),
            views(is_flipped=True) if self.flip and is_training else None,
            tokens,
            Mapped(pictures, attrgetter("captions")),
            self.captions_per_picture if is_training else None,
            self.seed,
        )
        # Pictures whose longest captions are alike share a batch: little is spent on padding. But
        # they are alike themselves, and a network that learns from the statistics of such batches
        # does not work with those of all pictures.
        lengths = np.fromiter((max(map(len, ids)) for ids in tokens), dtype=np.int64)
        if is_training and self._must_mix:
            lengths = np.full_like(lengths, self.max_caption_length)
        batch_size = self.batch_size if is_training else self.eval_batch_size
        shards = None if self.shard_window is None else self._source.shard_numbers(role)
        sampler = batch_sampler(
            lengths, batch_size, shards, self.shard_window, is_training, self.seed
        )
        return self.bucket_loader(dataset, sampler, collate)

    def prediction_files(self) -> Sequence[Path]:
        """Return the pictures of the folder ``predict``, sorted by their paths.

        Raises:
            ConfigError: If there is no such folder.
        """
        if self.predict is None:
            raise ConfigError("There is nothing to caption: set --data.predict to a folder.")
        return find_pictures(Path(self.predict))

    def predict_dataloader(self) -> DataLoader[CaptionExample]:
        """Return what ``prediction_files`` names, in its order.

        Raises:
            ConfigError: If there is no such folder.
        """
        paths = self.prediction_files()
        views, size = PictureFiles(paths, self._geometry), self._geometry.size
        is_fatal = self.on_bad_picture == "error"
        blank = None if is_fatal else torch.zeros(3, size, size, dtype=torch.uint8)
        dataset = PictureDataset(views, len(paths), blank)
        return self.ordered_loader(dataset, self.eval_batch_size, collate)

    def iter_readings(self) -> Iterator[Reading]:
        """Yield every picture of the splits, or what shards have of it, once.

        Raises:
            ConfigError: If shards have other things than the options ask for.
            DataError: If a caption file cannot be used.
        """
        source = self._read()
        splits = source.splits.values()
        for path in sorted({picture.path for pictures in splits for picture in pictures}):
            yield Reading(str(path), partial(source.read, path))

    def shard_source(self) -> ShardSource:
        """Return the pictures of the splits, as ``seq2seq-prepare`` writes them.

        After a ``show_to`` with a network, it is the features of them.

        Raises:
            ConfigError: If they are in shards already.
        """
        refuse_shards(self.captions, self.format == "shards")
        folders = {role: folder for role, (_, folder) in self.files.items()}
        pictures = picture_source(self._splits, folders, self.seed)
        if self._network is None:
            return pictures
        return feature_source(pictures, self._network, self._geometry, flip=self.flip)

    def training_references(self) -> list[tuple[str, ...]]:
        """Return the captions of each training picture."""
        return [picture.captions for picture in self._splits["train"]]

    def look_up(self, role: Split, index: int) -> Tensor | None:
        """Return a picture of a split as the network sees it, uint8 ``(3, size, size)``.

        It is None where the shards have features alone.
        """
        if not self._source.has_pictures:
            return None
        return self._source.views(self._pictures(role), self._geometry, network=None)[index]

    def _pictures(self, role: str) -> Sequence[CaptionedPicture]:
        if not self._splits[role]:
            path = self.files[role][0]
            raise DataError(
                f"{path}: the {role} split has no pictures. Set --data.{role} to the name of a "
                f"split in the file, or --data.{role}_share above 0 where it names none."
            )
        return self._splits[role]

    def _read(self) -> CaptionFiles | CaptionShards:
        """Return the pictures of every split, bad ones included."""
        if self.format == "shards":
            return CaptionShards(
                self.captions,
                self.cache_path(),
                self.shard_cache_gb,
                self.shard_window,
                cache_features=self.cache_features,
                flip=self.flip,
            )
        return CaptionFiles(
            self.files, self.format, self.split_names, self.shares, self.seed, self.cache_path()
        )

    def _load_tokenizer(self, source: CaptionFiles | CaptionShards, may_train: bool) -> Tokenizer:
        files, selection = source.training_text()
        return caption_tokenizer(
            self.vocabulary_options,
            source.splits["train"],
            self.captions,
            self.cache_path(),
            files,
            selection,
            may_train=may_train,
        )

    def cache_path(self) -> Path:
        """Return the folder of what ``prepare_data`` makes."""
        return cache_folder(self.files["train"][0].parent, self.cache_dir)

    def _problems(self) -> Iterator[str]:
        """Yield what is wrong with the options, one sentence each."""
        chosen, words = self.captions_per_picture, self.vocabulary_options
        smallest = {
            "vocab_size": (words.vocab_size, EOS_ID + 2),
            "minimum_count": (words.minimum_count, 1),
            "max_caption_length": (self.max_caption_length, 1),
            "captions_per_picture": (1 if chosen is None else chosen, 1),
            "batch_size": (self.batch_size, 1),
            "eval_batch_size": (self.eval_batch_size, 1),
            "num_workers": (self.num_workers, 0),
            "seed": (self.seed, 0),
            "val_share": (self.shares["val"], 0),
            "test_share": (self.shares["test"], 0),
            "max_bad_share": (self.max_bad_share, 0),
        }
        choices = {
            "format": (self.format, CaptionSource),
            "vocabulary": (words.vocabulary, Vocabulary),
            "caption_style": (words.caption_style, CaptionStyle),
            "on_bad_picture": (self.on_bad_picture, OnBadPicture),
        }
        yield from option_problems(smallest, choices)
        is_sharded = self.format == "shards"
        yield from shard_problems(is_sharded, self.shard_window, self.shard_cache_gb)
        yield from source_problems(self.files, self.images, self.shares, is_sharded)
        if words.minimum_count > 1 and words.vocabulary != "word":
            yield "--data.minimum_count is for --data.vocabulary word: choose that, or set it to 1."
