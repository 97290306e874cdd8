"""What files of series and generated ones share: loaders of windows."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from datamodules.base import ResumableLoader, SequenceDataModule, Split, option_problems
from datamodules.samplers import BucketBatchSampler
from datamodules.series_sampler import ChunkBatchSampler
from datamodules.series_windows import SeriesWindows, WindowExample, collate
from seq2seq.errors import ConfigError, DataError, raise_together
from seq2seq.series import SeriesScaling


class SeriesSplits(NamedTuple):
    """The windows of each split, by its name, and the scaling of the training part."""

    windows: dict[str, SeriesWindows]
    scaling: SeriesScaling


class WindowDataModule(SequenceDataModule):
    """Builds the loaders of windows of series.

    Args:
        num_channels: Number of values at each step.
        horizon: Number of steps of the forecasts that are scored.
        season: Number of steps of a season; None where no naive forecast is to be scored beside the
            model's.
        tbptt_steps: Length of the chunks that training windows are cut into; None for none.
        batch_size: Number of windows in a training batch; None for all.
        eval_batch_size: Number of windows in any other batch.
        num_workers: Number of processes that prepare batches; 0 for the main one.
        seed: Of the order of the batches.

    Attributes:
        scaling: Mean and deviation of the training part; known after ``setup``.

    Raises:
        ConfigError: If options cannot work, alone or together; all of them are named.
    """

    scaling: SeriesScaling

    def __init__(
        self,
        *,
        num_channels: int,
        horizon: int,
        season: int | None,
        tbptt_steps: int | None,
        batch_size: int | None,
        eval_batch_size: int,
        num_workers: int,
        seed: int,
    ) -> None:
        super().__init__(num_workers, seed)
        self.num_channels = num_channels
        self.horizon = horizon
        self.season = season
        self.tbptt_steps = tbptt_steps
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self._windows: dict[str, SeriesWindows] = {}
        raise_together([*self._problems()], ConfigError, "The data options cannot work:")

    def setup(self, stage: str) -> None:  # noqa: ARG002  # the splits come from the same series
        """Read or generate the series.

        Raises:
            ConfigError: If a season is longer than what is known before a forecast.
            DataError: If they cannot be used.
        """
        self._windows, self.scaling = self._make_splits()
        for windows in self._windows.values():
            if self.season is not None and self.season > (windows.warm_up or self.season):
                raise ConfigError(
                    f"--data.season={self.season} is more than the {windows.warm_up} steps before "
                    "each forecast. Let these be a season or more, or set --data.season=null."
                )

    def split_loader(self, role: Split) -> ResumableLoader[WindowExample]:
        """Return the windows of a part.

        Those of training are shuffled; with ``tbptt_steps``, batches are consecutive chunks of the
        same windows. Of the others, the last ``horizon`` steps are of their part; they are in
        order.
        """
        windows = self._windows[role]
        if not windows.windows:
            raise DataError(f"The {role} split has nothing in it. {self._remedy(role)}")
        is_training = role == "train"
        batch_size = self.eval_batch_size
        if is_training:
            batch_size = self.batch_size or windows.windows
        sampler: BucketBatchSampler
        if windows.chunks > 1:
            sampler = ChunkBatchSampler(windows.windows, windows.chunks, batch_size, self.seed)
        else:
            sampler = BucketBatchSampler(
                _sizes(windows), max_tokens=batch_size, shuffle=is_training, seed=self.seed
            )
        return self.bucket_loader(windows, sampler, collate)

    @abstractmethod
    def _make_splits(self) -> SeriesSplits:
        """Return the windows of every split.

        Raises:
            DataError: If the series cannot be used.
        """

    @abstractmethod
    def _remedy(self, role: str) -> str:
        """Return which option fills a split."""

    def _problems(self) -> Iterator[str]:
        """Yield what is wrong with the options, one sentence each."""
        smallest = {
            "num_channels": (self.num_channels, 1),
            "horizon": (self.horizon, 1),
            "eval_batch_size": (self.eval_batch_size, 1),
            "num_workers": (self.num_workers, 0),
            "seed": (self.seed, 0),
        }
        optional = {
            "season": (self.season, 1),
            "tbptt_steps": (self.tbptt_steps, 2),  # of one step, the first chunk has no target
            "batch_size": (self.batch_size, 1),
        }
        yield from option_problems(smallest | only_given(optional), {})


def only_given(
    smallest: Mapping[str, tuple[float | None, float]],
) -> dict[str, tuple[float, float]]:
    """Return the options that are not None, and the smallest value of each that works."""
    return {name: (value, least) for name, (value, least) in smallest.items() if value is not None}


def _sizes(windows: SeriesWindows) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.ones(windows.windows, dtype=np.int64)  # all are equally long
