"""Series from files: what comes last in time is forecast, and nothing ever looks ahead."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import Reading, ResumableLoader, Split, option_problems
from datamodules.series_base import SeriesSplits, WindowDataModule, only_given
from datamodules.series_windows import SeriesWindows, WindowExample
from seq2seq.errors import DataError, raise_together
from seq2seq.series import (
    Missing,
    Series,
    fit_scaling,
    interpolate,
    no_scaling,
    read_all_series,
)

Layout = Literal["channels", "series"]


class _Table(NamedTuple):
    """All series of a file.

    Attributes:
        values: 0 where missing, float64 ``(series, time, channels)``.
        is_known: False where a value is missing, bool ``(series, time, channels)``.
        names: Of the channels; empty where they have none of their own.
    """

    values: Tensor
    is_known: Tensor
    names: tuple[str, ...]


class SeriesDataModule(WindowDataModule):
    """Series of numbers from a file, split by time.

    The last part of the time is the test, what comes before it is validation, and training has the
    rest. A part that is forecast is covered by consecutive forecasts of ``horizon`` steps. Each may
    read the ``warm_up`` steps before it, of earlier parts, too, and is scored on its own steps: as
    if a forecast had been made every ``horizon`` steps. Training windows end before validation
    begins; the last of them is at the very end, and the others are ``stride`` steps apart.

    Args:
        source: File with a row for each step: ``.csv``, ``.tsv`` or ``.txt``, with or without a
            header; or an array, ``.npy`` or ``.npz``, that is ``(time,)``, ``(time, columns)`` or
            ``(series, time, columns)``. Each may be compressed, ``.gz``.
        horizon: Number of steps that are forecast at a time.
        num_channels: Number of values at each step.
        columns: Names of the columns to read; null for all but the time. Columns without a name are
            called by their numbers, from 1.
        time_column: Name of the column that tells the time; null where there is none. Times must
            ascend, oldest first, which is checked where they are numbers or dates.
        layout: Whether columns are the ``channels`` of one series, or each is one of several
            ``series`` for the same model, with a scaling that they share.
        missing: Whether missing and infinite values are an ``error``, are filled in by
            ``interpolate``, or are ``keep``: left out. Filled in are training values and warm-ups,
            each from itself alone; what is scored is never filled in.
        window: Number of steps of a training window; null for the whole training part.
        stride: Number of steps from one training window to the next.
        warm_up: Number of steps that are read before each forecast; null for those of a window.
        val_share: Share of the time that is validation.
        test_share: Share of the time that is the test.
        standardize: Let the model see each channel with mean 0 and standard deviation 1 in the
            training part.
        season: Number of steps of a season: the forecast that repeats the last one is scored beside
            the model's; null for none.
        tbptt_steps: Length of the chunks that training goes through windows in, with the state
            carried over and the gradient cut; null for whole windows.
        batch_size: Number of windows in a training batch; null for all, as L-BFGS wants.
        eval_batch_size: Number of windows in any other batch.
        num_workers: Number of processes that prepare batches; 0 for the main one.
        seed: Of the order of the batches.

    Raises:
        ConfigError: If options cannot work, alone or together; all of them are named.
    """

    def __init__(
        self,
        source: str,
        horizon: int,
        num_channels: int = 1,
        columns: list[str] | None = None,
        time_column: str | None = None,
        layout: Layout = "channels",
        missing: Missing = "error",
        window: int | None = 100,
        stride: int = 1,
        warm_up: int | None = None,
        val_share: float = 0.1,
        test_share: float = 0.1,
        standardize: bool = True,
        season: int | None = None,
        tbptt_steps: int | None = None,
        batch_size: int | None = 32,
        eval_batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 1,
    ) -> None:
        self.source = Path(source)
        self.columns = columns
        self.time_column = time_column
        self.layout: Layout = layout
        self.missing: Missing = missing
        self.window = window
        self.stride = stride
        self.warm_up = warm_up
        self.shares = {"val": val_share, "test": test_share}
        self.standardize = standardize
        super().__init__(
            num_channels=num_channels,
            horizon=horizon,
            season=season,
            tbptt_steps=tbptt_steps,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
        )

    def prepare_data(self) -> None:
        """Check the file.

        Raises:
            DataError: If it cannot be used.
        """
        self._read()

    def iter_readings(self) -> Iterator[Reading]:
        """Yield the file."""
        yield Reading(str(self.source), self._make_splits)

    def split_loader(self, role: Split) -> ResumableLoader[WindowExample]:
        """Return the windows of a part, as for any series.

        Raises:
            DataError: If the part has no step, or no value that is known.
        """
        loader = super().split_loader(role)
        windows = self._windows[role]
        if role != "train" and not windows.has_truth():
            raise DataError(
                f"{self.source}: no value of the {role} part is known, which ends at step "
                f"{windows.values.shape[1]}, so that no forecast can be scored. Set "
                "--data.val_share and --data.test_share so that it has known values."
            )
        return loader

    def _make_splits(self) -> SeriesSplits:
        table = self._read()
        steps = table.values.shape[1]
        val, test = (round(steps * self.shares[role]) for role in ("val", "test"))
        ends = {"train": steps - val - test, "val": steps - test, "test": steps}
        window = ends["train"] if self.window is None else self.window
        warm_up = window if self.warm_up is None else self.warm_up
        self._check_lengths(steps, ends, window, warm_up)
        train = _first_steps(table, ends["train"])
        self._check_known(train)
        scaling = no_scaling(self.num_channels, table.names)
        if self.standardize:
            scaling = fit_scaling(*train)
        if self.missing == "interpolate":
            pairs = [interpolate(*pair) for pair in zip(train.values, train.is_known, strict=True)]
            values, is_known = map(torch.stack, zip(*pairs, strict=True))
            train = _Table(values, is_known, train.names)
        first = (ends["train"] - window) % self.stride
        windows = {
            "train": SeriesWindows(
                train.values,
                train.is_known,
                _places(len(train.values), range(first, ends["train"] - window + 1, self.stride)),
                window,
                chunk_steps=self.tbptt_steps,
            )
        }
        for role, before in (("val", "train"), ("test", "val")):
            part = _first_steps(table, ends[role])
            origins = range(ends[before], ends[role], self.horizon)
            starts = range(origins.start - warm_up, origins.stop - warm_up, self.horizon)
            windows[role] = SeriesWindows(
                part.values,
                part.is_known,
                _places(len(part.values), starts),
                warm_up + self.horizon,
                warm_up=warm_up,
                fills_warm_up=self.missing == "interpolate",
            )
        return SeriesSplits(windows, scaling)

    def _read(self) -> _Table:
        found = read_all_series(
            self.source,
            columns=self.columns,
            time_column=self.time_column,
            # Filled in later, from what is known at the time.
            missing="keep" if self.missing == "interpolate" else self.missing,
        )
        names = found[0].names
        values, is_known = self._arrange(found)
        if values.shape[2] != self.num_channels:
            raise DataError(
                f"{self.source}: has {len(names)} channels ({', '.join(names)}), not "
                f"{self.num_channels}. Set --data.num_channels={len(names)}, choose some with "
                "--data.columns and --data.time_column, or take each for a series of its own with "
                "--data.layout=series."
            )
        return _Table(values, is_known, () if self.layout == "series" else names)

    def _arrange(self, found: list[Series]) -> tuple[Tensor, Tensor]:
        """Return values and what is known, each ``(series, time, channels)``."""
        values = torch.stack([series.values for series in found])
        is_known = torch.stack([series.is_known for series in found])
        if self.layout == "channels":
            return values, is_known
        if len(found) > 1:
            raise DataError(
                f"{self.source}: its first axis is {len(found)} series already. "
                "Set --data.layout=channels."
            )
        return values.permute(2, 1, 0), is_known.permute(2, 1, 0)

    def _check_lengths(self, steps: int, ends: dict[str, int], window: int, warm_up: int) -> None:
        problems = []
        least = max(2, window, warm_up)
        if ends["train"] < least:
            problems.append(
                f"{self.source}: of {steps} steps, {ends['train']} are the training part, and "
                f"{least} are needed: a window of {window}, and {warm_up} before each forecast. "
                "Lower --data.window and --data.warm_up, or --data.val_share and "
                "--data.test_share, or give a longer series."
            )
        for role, before in (("val", "train"), ("test", "val")):
            size = ends[role] - ends[before]
            if self.shares[role] and size < self.horizon:
                problems.append(
                    f"{self.source}: of {steps} steps, {size} are the {role} part, fewer than a "
                    f"forecast of {self.horizon}. Raise --data.{role}_share, or lower "
                    "--data.horizon."
                )
        raise_together(problems, DataError, f"{self.source}: the series is too short:")

    def _check_known(self, train: _Table) -> None:
        is_empty = ~train.is_known.flatten(0, 1).any(dim=0)
        if is_empty.any():
            names = [name for name, empty in zip(train.names, is_empty, strict=True) if empty]
            raise DataError(
                f"{self.source}: no value of {', '.join(names) or 'any series'} in the training "
                f"part, the first {train.values.shape[1]} steps. Leave it out of --data.columns."
            )

    def _remedy(self, role: str) -> str:
        return f"Set --data.{role}_share above 0."

    def _problems(self) -> Iterator[str]:
        """Yield what is wrong with the options, one sentence each."""
        yield from super()._problems()
        smallest = {
            "stride": (self.stride, 1),
            "val_share": (self.shares["val"], 0),
            "test_share": (self.shares["test"], 0),
        }
        optional = {"window": (self.window, 2), "warm_up": (self.warm_up, 1)}
        choices = {"layout": (self.layout, Layout), "missing": (self.missing, Missing)}
        yield from option_problems(smallest | only_given(optional), choices)
        if self.layout == "series" and self.num_channels != 1:
            yield (
                f"--data.num_channels is {self.num_channels}: with --data.layout=series, each "
                "series has 1."
            )
        if sum(self.shares.values()) >= 1:
            yield "--data.val_share and --data.test_share leave nothing to train on: lower them."


def _first_steps(table: _Table, steps: int) -> _Table:
    """Return what is known until then, and nothing that comes later."""
    return _Table(table.values[:, :steps], table.is_known[:, :steps], table.names)


def _places(series: int, starts: range) -> NDArray[np.int64]:
    """Return number of the series and first step of all windows, int64 ``(windows, 2)``."""
    numbers, steps = np.meshgrid(
        np.arange(series), np.arange(starts.start, starts.stop, starts.step)
    )
    return np.stack([numbers.T.ravel(), steps.T.ravel()], axis=1).astype(np.int64)
