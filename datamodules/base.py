"""What the data of every modality shares: datasets with an epoch, loaders that can resume."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from datamodules.samplers import BucketBatchSampler, RankSampler
from datamodules.worker_signals import leave_signals_to_main
from seq2seq.batches import Batch, SeriesBatch
from seq2seq.errors import ConfigError, DataError

Example = TypeVar("Example", covariant=True)

Split = Literal["train", "val", "test"]

# Each worker prepares this many batches ahead: enough to hide a slow one, and bounded.
_PREFETCHED_BATCHES = 4


class SequenceDataset(Dataset[Example], ABC):
    """A dataset whose random choices depend on the seed, the epoch and the index alone.

    Args:
        seed: Of the random choices.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        # In shared memory: workers outlive an epoch, and their copy must follow.
        self._epoch = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # torch gives it no types

    @abstractmethod
    def __len__(self) -> int: ...

    def set_epoch(self, epoch: int) -> None:
        """Choose which random choices are made, here and in the workers."""
        self._epoch[0] = epoch

    def generator(self, index: int) -> np.random.Generator:
        """Return the generator of the random choices for example ``index``."""
        return np.random.default_rng((self.seed, int(self._epoch[0]), index))


class ResumableLoader(DataLoader[Example]):
    """A loader that can go on in the middle of an epoch.

    Lightning saves ``state_dict`` of the training loader in its checkpoints, and loads it before
    it makes the iterator. It tells the sampler the epoch only after that: so nothing is fetched
    before the first batch is asked for. The position counts the batches handed out, not those the
    workers have fetched ahead.

    Args:
        dataset: Where examples come from.
        batch_sampler: Which examples make up a batch.
        **options: Of ``torch.utils.data.DataLoader``.
    """

    def __init__(
        self,
        dataset: SequenceDataset[Example],
        batch_sampler: BucketBatchSampler,
        **options: Any,
    ) -> None:
        super().__init__(dataset, batch_sampler=batch_sampler, **options)
        self._sequences = dataset
        self._batches = batch_sampler

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the random choices of the next pass."""
        self._batches.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, and how many of its batches have been handed out."""
        return self._batches.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass go on where ``state`` was taken."""
        self._batches.load_state_dict(state)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names its own iterator
        self._sequences.set_epoch(self._batches.epoch)
        try:
            for batch in super().__iter__():
                self._batches.position += 1
                yield batch
        except DataError as error:
            # Out of a worker, its message has the worker's traceback before it.
            mark = f"\n{DataError.__module__}.{DataError.__name__}: "
            _, is_from_worker, message = str(error).rpartition(mark)
            if not is_from_worker:
                raise
            raise DataError(message.removesuffix("\n")) from error


class Reading(NamedTuple):
    """A file that can be read to see whether it is sound.

    Attributes:
        name: The file.
        read: Reads all of it; raises a ``DataError`` if it cannot be used.
    """

    name: str
    read: Callable[[], object]


class SequenceDataModule(LightningDataModule, ABC):
    """Builds the loaders of every modality.

    Args:
        num_workers: Number of processes that prepare batches; 0 to prepare them in the main one.
        seed: Of the order of the batches, and of random choices in the examples.

    Attributes:
        predicted: Places in the input that prediction leaves out, as they have been predicted
            before; int64 ``(inputs,)``.
    """

    def __init__(self, num_workers: int = 0, seed: int = 1) -> None:
        super().__init__()
        self.num_workers = num_workers
        self.seed = seed
        self.predicted: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    @abstractmethod
    def split_loader(self, role: Split) -> ResumableLoader[Any]:
        """Return the batches of a split.

        Raises:
            DataError: If there is nothing in it.
        """

    def train_dataloader(self) -> ResumableLoader[Any]:
        """Return the batches of the training split, in another order in every epoch."""
        return self.split_loader("train")

    def val_dataloader(self) -> ResumableLoader[Any]:
        """Return the batches of the validation split."""
        return self.split_loader("val")

    def test_dataloader(self) -> ResumableLoader[Any]:
        """Return the batches of the test split."""
        return self.split_loader("test")

    def iter_readings(self) -> Iterator[Reading]:
        """Yield every file of the data, to be read from its start to its end.

        Raises:
            ConfigError: If the data module does not tell.
            DataError: If what lists the files cannot be read.
        """
        raise ConfigError(
            f"{type(self).__name__} does not say which files it has, so they cannot be checked. "
            "Let it have a method iter_readings that does."
        )

    def prediction_files(self) -> Sequence[Path]:
        """Return what ``predict_dataloader`` reads, in its order; nothing where it does not tell.

        A prediction that was interrupted goes on only where they have not changed.

        Raises:
            ConfigError: If there is nothing to predict.
            DataError: If a file is not there.
        """
        return ()

    def bucket_loader(
        self,
        dataset: SequenceDataset[Any],
        batch_sampler: BucketBatchSampler,
        collate: Callable[[list[Any]], Batch | SeriesBatch],
    ) -> ResumableLoader[Any]:
        """Return the loader of training, validation or test."""
        return ResumableLoader(dataset, batch_sampler, collate_fn=collate, **self._worker_options())

    def ordered_loader(
        self,
        dataset: SequenceDataset[Any],
        batch_size: int,
        collate: Callable[[list[Any]], Batch],
    ) -> DataLoader[Any]:
        """Return the loader of prediction: in the order of the dataset, less what is ``predicted``.

        Raises:
            DataError: If more has been predicted than there is.
        """
        if self.predicted.max(initial=-1) >= len(dataset):
            raise DataError(
                f"Of the {len(dataset)} inputs, number {self.predicted.max() + 1} is finished: "
                "there were more when prediction began. Give --data.predict as it was, or begin "
                "anew without the finished parts."
            )
        sampler: Sampler[int] = RankSampler(len(dataset), self.predicted)
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=collate,
            **self._worker_options(),
        )

    def _worker_options(self) -> dict[str, Any]:
        has_workers = self.num_workers > 0
        return {
            "num_workers": self.num_workers,
            "worker_init_fn": leave_signals_to_main,
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": has_workers,
            "prefetch_factor": _PREFETCHED_BATCHES if has_workers else None,
        }


def problems_of(problems: Sequence[str | None]) -> tuple[str | None, ...]:
    """Return why inputs could not be used, as a ``Batch`` has it."""
    return tuple(problems) if any(problem is not None for problem in problems) else ()


def option_problems(
    smallest: Mapping[str, tuple[float, float]], choices: Mapping[str, tuple[str, Any]]
) -> Iterator[str]:
    """Yield what is wrong with single options, one sentence each.

    Args:
        smallest: Value of each option, and the smallest that works.
        choices: Value of each option, and the ``Literal`` that lists what works.
    """
    for option, (value, least) in smallest.items():
        if value < least:
            yield f"--data.{option} is {value}: set it to {least} or more."
    for option, (choice, kind) in choices.items():
        if choice not in get_args(kind):
            yield f"--data.{option} is {choice!r}: choose from {', '.join(get_args(kind))}."
