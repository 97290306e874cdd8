"""Videos and their labels."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
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
from datamodules.clip_augmentation import ClipAugmentation
from datamodules.clip_sources import ClipFiles, ClipSource, StoredClips, good_parts
from datamodules.quarantine import Quarantine
from datamodules.shard_plan import ShardSource, refuse_shards
from datamodules.shard_sampler import batch_sampler
from datamodules.shard_table import Mapped
from datamodules.shard_video_features import video_feature_source
from datamodules.shard_videos import part_of, video_source
from datamodules.shards import shard_problems
from datamodules.video_dataset import (
    ClipDataset,
    ClipExample,
    VideoDataset,
    collate,
)
from datamodules.video_files import VideoFormat
from datamodules.video_formats import VideoEntry
from datamodules.video_labels import label_text, label_vocabulary
from datamodules.video_sources import VideoFiles, VideoShards, read_to_end
from seq2seq.errors import ConfigError, DataError, raise_together
from seq2seq.feature_cache import FeatureNetwork
from seq2seq.first_process import do_once
from seq2seq.pictures import PictureGeometry
from seq2seq.tokenizers import FIRST_LABEL_ID, LABEL_SEPARATOR, LabelVocabulary
from seq2seq.videos import BrokenTail, ClipSampling, find_videos
from seq2seq.videos.frames import CutWarnings, FramePreparation, FrameReader, VideoPart
from seq2seq.videos.store import FrameStore, frame_folder, frame_settings, write_frames

OnBadVideo = Literal["error", "quarantine"]
VideoSource = Literal[VideoFormat, "shards"]


class VideoDataModule(SequenceDataModule):
    """Videos with one label each, or the same number of them, from files.

    Videos are files of any container, folders of frames, or arrays (``.npy``, ``.npz``). They are
    named by folders of class folders, by a table (CSV, TSV), or by the split lists of UCF101. Where
    the source names no splits, whole groups go to ``val`` and ``test``; no group, such as a person,
    is ever in two splits.

    Args:
        source: Folder of class folders; a table with the columns
            ``path,label[,start,end][,group][,split]``; a ``trainlist01.txt`` of UCF101; or for
            ``shards``, their folder or URL.
        num_classes: Number of labels of the training videos.
        root: Folder of the videos that a file names; null for the file's own.
        format: Format of the source; ``auto`` goes by its name. ``shards``, which
            ``seq2seq-prepare`` has written, have the splits of their recipe; and videos, or, with
            ``cache_features``, features of them.
        label_separator: What is between the labels of a video with several, in a table.
        label_steps: Labels of each video.
        val_share: Share of the training videos that becomes validation.
        test_share: Share of them that becomes the test.
        val_groups: Groups of them that become validation, in place of a share.
        train_on_val: Train on the validation videos, too, when all choices have been made on them.
            Validation then shows nothing any more: take the last checkpoint.
        predict: Video, or folder of videos, for ``seq2seq predict``.
        broken_tail: Whether a video that breaks off is an ``error``, or is ``cut`` there, with a
            warning.
        on_bad_video: Whether a video that cannot be read is an ``error``, or goes to
            ``quarantine``: another one takes its place, and it is listed in ``quarantine.csv`` in
            the cache folder, until its split is read by another run. A training that goes on from
            a checkpoint adds to its list. In ``seq2seq predict`` its line says why.
        max_bad_share: Largest share of bad videos of a split that ``quarantine`` puts up with.
        stills_rate_hz: Frame rate of folders of frames and of arrays, frames per second; that of
            features in shards has to be the same.
        cache_frames: Decode every video only once, and keep all its frames, as the network sees
            them, in the cache folder.
        cache_features: Let a frozen network see each frame only once, and train on what it made of
            them. Keeps the frames, too; or the features come with the shards, and have to be of the
            same network.
        shard_window: Out of how many shards batches are mixed, which are then read one after the
            other; null for all of them, as files are.
        shard_cache_gb: Room in the cache folder for shards from a URL, 10^9 bytes.
        augmentation: Random changes of training clips.
        batch_size: Number of clips in a training batch.
        eval_batch_size: Number of videos in any other batch; each may have several clips.
        cache_dir: Folder for frames, features and the list of bad videos; null for
            ``.seq2seq_cache`` beside the source, or in the user's cache folder where that cannot be
            written.
        num_workers: Number of processes that prepare batches; 0 for the main one.
        decode_threads: Number of threads that decode one video.
        seed: Of the splits, the order of the batches, and random choices in training.

    Attributes:
        tokenizers: The labels, as that of the ``target``; known after ``setup``.

    Raises:
        ConfigError: If options cannot work, alone or together; all of them are named.
    """

    _videos: VideoFiles | VideoShards

    def __init__(
        self,
        source: str,
        num_classes: int,
        root: str | None = None,
        format: VideoSource = "auto",  # noqa: A002  # the name of the option
        label_separator: str = LABEL_SEPARATOR,
        label_steps: int = 1,
        val_share: float = 0.0,
        test_share: float = 0.0,
        val_groups: list[str] | None = None,
        train_on_val: bool = False,
        predict: str | None = None,
        broken_tail: BrokenTail = "error",
        on_bad_video: OnBadVideo = "error",
        max_bad_share: float = 0.01,
        stills_rate_hz: float = 25.0,
        cache_frames: bool = False,
        cache_features: bool = False,
        shard_window: int | None = None,
        shard_cache_gb: float = 20.0,
        augmentation: ClipAugmentation = ClipAugmentation(),  # noqa: B008  # frozen
        batch_size: int = 16,
        eval_batch_size: int = 32,
        cache_dir: str | None = None,
        num_workers: int = 0,
        decode_threads: int = 1,
        seed: int = 1,
    ) -> None:
        super().__init__(num_workers, seed)
        self.given_source = source
        self.source = Path(source)
        self.num_classes = num_classes
        self.root = None if root is None else Path(root)
        self.format: VideoSource = format
        self.label_separator = label_separator
        self.label_steps = label_steps
        self.shares = {"val": val_share, "test": test_share}
        self.val_groups = val_groups or []
        self.train_on_val = train_on_val
        self.predict = predict
        self.broken_tail: BrokenTail = broken_tail
        self.on_bad_video: OnBadVideo = on_bad_video
        self.max_bad_share = max_bad_share
        self.stills_rate_hz = stills_rate_hz
        self.cache_frames = cache_frames
        self.cache_features = cache_features
        self.shard_window = shard_window
        self.shard_cache_gb = shard_cache_gb
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.cache_dir = cache_dir
        self.decode_threads = decode_threads
        self.tokenizers: dict[str, LabelVocabulary] = {}
        self._splits: dict[str, Sequence[VideoEntry]] = {}
        self._preparation = FramePreparation(PictureGeometry())
        self._sampling = ClipSampling()
        self._network: FeatureNetwork | None = None
        self._warn_of_cut = CutWarnings()
        raise_together(list(self._problems()), ConfigError, "The data options cannot work:")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels, in the order of the classes."""
        return self.tokenizers["target"].names

    def prepare_data(self) -> None:
        """Check the source.

        Raises:
            ConfigError: If the options of the splits contradict it, or shards have other things
                than the options ask for.
            DataError: If it cannot be used.
        """
        self._read()

    def setup(self, stage: str) -> None:  # noqa: ARG002  # the source is read as a whole
        """Read the source.

        Raises:
            ConfigError: As ``prepare_data``.
            DataError: If it cannot be used, or has another number of labels than ``num_classes``.
        """
        self._videos, self.tokenizers["target"] = self._read()
        self._splits = dict(self._videos.splits)
        if self.train_on_val:
            self._splits["train"] = [*self._splits["train"], *self._splits["val"]]

    def show_to(
        self,
        preparation: FramePreparation,
        sampling: ClipSampling,
        network: FeatureNetwork | None,
    ) -> None:
        """Prepare clips as a network wants them.

        Args:
            preparation: What becomes of a frame.
            sampling: Which frames make a clip.
            network: What gives features of frames; None to give the frames themselves.
        """
        self._preparation = preparation
        self._sampling = sampling
        self._network = network

    def split_loader(self, role: Split) -> ResumableLoader[ClipExample]:
        """Return the batches of a split; one clip of each video in training, else all of them."""
        is_training = role == "train"
        entries = self._entries(role)
        quarantine = self._quarantine(role, entries)
        if quarantine is not None:
            self._begin(quarantine)
        source, entries = self._clips(role, entries, quarantine)
        dataset = ClipDataset(
            source,
            self._targets(entries),
            Mapped(entries, label_text),
            Mapped(entries, attrgetter("path")),
            self._sampling,
            self.augmentation if is_training else None,
            quarantine,
            self.seed,
        )
        batch_size = self.batch_size if is_training else self.eval_batch_size
        lengths = np.ones(len(entries), dtype=np.int64)  # clips are equally long
        shards = None
        if self.shard_window is not None:
            roles = ("train", "val") if is_training and self.train_on_val else (role,)
            shards = self._videos.shard_numbers(*roles)
        sampler = batch_sampler(
            lengths, batch_size, shards, self.shard_window, is_training, self.seed
        )
        return self.bucket_loader(dataset, sampler, collate)

    def prediction_files(self) -> Sequence[Path]:
        """Return the video ``predict``, or those of a folder, sorted by their paths.

        Raises:
            ConfigError: If none is given.
            DataError: If there is none.
        """
        if self.predict is None:
            raise ConfigError("There is nothing to classify: set --data.predict.")
        path = Path(self.predict)
        if not path.exists():
            raise DataError(f"{path}: does not exist. Set --data.predict to a video or a folder.")
        videos = find_videos(path) if path.is_dir() else [path]
        if not videos:
            raise DataError(f"{path}: has no videos. Set --data.predict to a folder that has some.")
        return videos

    def predict_dataloader(self) -> DataLoader[ClipExample]:
        """Return what ``prediction_files`` names, in its order.

        Raises:
            ConfigError: If none is given.
            DataError: If there is none.
        """
        videos = self.prediction_files()
        source = ClipFiles(self._reader(), [VideoPart(video) for video in videos])
        dataset = VideoDataset(source, len(videos), self._sampling, self._blank())
        return self.ordered_loader(dataset, self.eval_batch_size, collate)

    def iter_readings(self) -> Iterator[Reading]:
        """Yield every video of the splits, or what shards have of it, once.

        Raises:
            ConfigError: If the options of the splits contradict the source.
            DataError: If the source cannot be used.
        """
        videos, _ = self._read()
        parts: dict[Path, list[VideoPart]] = {}
        for entry in chain.from_iterable(videos.splits.values()):
            parts.setdefault(entry.path, []).append(part_of(entry))
        for path, own in parts.items():
            yield Reading(str(path), partial(read_to_end, videos, self._reader(), path, own))

    def shard_source(self) -> ShardSource:
        """Return the videos of the splits, as ``seq2seq-prepare`` writes them.

        After a ``show_to`` with a network, it is the features of them.

        Raises:
            ConfigError: If they are in shards already, or the options of the splits contradict the
                source.
            DataError: If the source cannot be used.
        """
        refuse_shards(self.given_source, self.format == "shards")
        splits = self._read()[0].splits
        noted = {role: self._quarantine(role, entries) for role, entries in splits.items()}
        reader = self._reader()
        videos = video_source(splits, self.root or self._folder(), reader, noted, self.seed)
        if self._network is None:
            return videos
        return video_feature_source(videos, self._network, reader)

    def label_counts(self) -> Tensor:
        """Return how often each class occurs in the training split, int64 ``(classes,)``."""
        classes = self._targets(self._splits["train"]) - FIRST_LABEL_ID
        return torch.bincount(classes.flatten(), minlength=self.num_classes)

    def _clips(
        self, role: str, entries: Sequence[VideoEntry], quarantine: Quarantine | None
    ) -> tuple[ClipSource, Sequence[VideoEntry]]:
        """Return what gives the clips of a split, and the entries it gives them of."""
        if self.format == "shards" or not (self.cache_frames or self.cache_features):
            return self._videos.clips(self._reader(), entries, self._network), entries
        store = self._store(entries)
        kept = good_parts(store, [entry.path for entry in entries], role, quarantine)
        network = self._network
        features = None if network is None else network.cached_features(store, self.cache_path())
        return StoredClips(store, kept, features), [entries[place] for place in kept]

    def _store(self, entries: Sequence[VideoEntry]) -> FrameStore:
        """Return the frames of a split; with several processes, the first of them decodes."""
        reader, parts = self._reader(), [part_of(entry) for entry in entries]
        settings = frame_settings(reader, parts)
        folder = frame_folder(self.cache_path(), settings)
        workers = max(1, (os.cpu_count() or 1) // self.decode_threads)
        do_once(partial(write_frames, folder, reader, parts, settings, workers))
        return FrameStore(folder, settings)

    def _reader(self) -> FrameReader:
        return FrameReader(
            self._preparation,
            self.stills_rate_hz,
            self.decode_threads,
            self.broken_tail,
            self._warn_of_cut,
        )

    def _blank(self) -> Tensor | None:
        """Return what a bad video is predicted of; None where it is an error."""
        if self.on_bad_video == "error":
            return None
        size = self._preparation.geometry.size
        return torch.zeros(self._preparation.channels, size, size, dtype=torch.uint8)

    def _entries(self, role: str) -> Sequence[VideoEntry]:
        if not self._splits[role]:
            groups = " or --data.val_groups" if role == "val" else ""
            raise DataError(
                f"{self.source}: the {role} split has no videos. Name some in the source, or set "
                f"--data.{role}_share above 0{groups}."
            )
        return self._splits[role]

    def _targets(self, entries: Sequence[VideoEntry]) -> Tensor:
        """Return the ids of labels, int64 ``(videos, steps)``."""
        encoded = self.tokenizers["target"].encode_batch([label_text(entry) for entry in entries])
        return torch.tensor(encoded, dtype=torch.int64).view(len(entries), self.label_steps)

    def _read(self) -> tuple[VideoFiles | VideoShards, LabelVocabulary]:
        """Return the videos of every split, bad ones included, and their labels."""
        videos: VideoFiles | VideoShards
        if self.format == "shards":
            videos = VideoShards(
                self.given_source,
                self.cache_path(),
                self.shard_cache_gb,
                self.shard_window,
                self.label_steps,
                cache_features=self.cache_features,
                stills_rate_hz=self.stills_rate_hz,
            )
        else:
            videos = VideoFiles(
                self.source,
                self.root,
                self.format,
                self.label_separator,
                self.label_steps,
                self.shares,
                self.val_groups,
                self.seed,
            )
        return videos, label_vocabulary(self.source, videos.splits["train"], self.num_classes)

    def _folder(self) -> Path:
        return self.source if self.source.is_dir() else self.source.parent

    def cache_path(self) -> Path:
        """Return the folder of what ``prepare_data`` makes."""
        return cache_folder(self._folder(), self.cache_dir)

    def _quarantine(self, role: str, entries: Sequence[VideoEntry]) -> Quarantine | None:
        """Return what notes the bad videos of a split; None where they are errors."""
        if self.on_bad_video == "error":
            return None
        paths = {entry.path for entry in entries}
        file = self.cache_path() / "quarantine.csv"
        return Quarantine(file, paths, role, self.max_bad_share)

    def _begin(self, quarantine: Quarantine) -> None:
        """Forget what was bad in an earlier run, unless this one goes on where that was."""
        trainer = self.trainer
        if trainer is None:
            quarantine.forget()
            return
        is_resumed = trainer.state.fn == "fit" and trainer.ckpt_path is not None
        if trainer.is_global_zero and not is_resumed:
            quarantine.forget()
        trainer.strategy.barrier()  # no process may have noted anything before

    def _problems(self) -> Iterator[str]:
        """Yield what is wrong with the options, one sentence each."""
        smallest = {
            "num_classes": (self.num_classes, 2),
            "label_steps": (self.label_steps, 1),
            "val_share": (self.shares["val"], 0),
            "test_share": (self.shares["test"], 0),
            "max_bad_share": (self.max_bad_share, 0),
            "batch_size": (self.batch_size, 1),
            "eval_batch_size": (self.eval_batch_size, 1),
            "num_workers": (self.num_workers, 0),
            "decode_threads": (self.decode_threads, 1),
            "seed": (self.seed, 0),
        }
        choices = {
            "format": (self.format, VideoSource),
            "broken_tail": (self.broken_tail, BrokenTail),
            "on_bad_video": (self.on_bad_video, OnBadVideo),
        }
        yield from option_problems(smallest, choices)
        is_sharded = self.format == "shards"
        yield from shard_problems(is_sharded, self.shard_window, self.shard_cache_gb)
        if is_sharded and self.cache_frames:
            yield (
                "--data.cache_frames keeps all frames on this machine, which --data.format shards "
                "is to avoid: set it to false, or give files."
            )
        if self.cache_features and self.augmentation.is_active:
            yield (
                "--data.cache_features keeps features of frames as they are: set it to false, or "
                "leave the options of --data.augmentation as they are by default."
            )
        if sum(self.shares.values()) >= 1:
            yield "--data.val_share and --data.test_share leave nothing to train on: lower them."
        if not 0 < self.stills_rate_hz < float("inf"):
            yield (
                f"--data.stills_rate_hz={self.stills_rate_hz} is no rate: choose more than 0 "
                "frames per second."
            )
