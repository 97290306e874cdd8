"""Tiny forecasters, the series that they read, and training steps without a trainer."""

import datetime
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from datamodules.series import SeriesDataModule
from datamodules.waves import SineDataModule
from seq2seq.batches import SeriesBatch
from seq2seq.tasks.forecasting import Forecaster
from seq2seq.tasks.options import Optimization

DAYS, CHANNELS = 60, ("warm", "cold")
ROWS, STEPS = 3, 12


def table(days: int = DAYS, header: str = "day,warm,cold") -> str:
    """Return two waves, one of them high up, as CSV."""
    first = datetime.date(2024, 1, 10)
    rows = [
        f"{first + datetime.timedelta(days=day)},{math.sin(day / 3):.5f},{20 + day % 4}"
        for day in range(days)
    ]
    return "\n".join([header, *rows, ""])


def write_table(folder: Path, name: str = "days.csv", **options: Any) -> Path:
    path = folder / name
    path.write_text(table(**options), encoding="utf-8")
    return path


def module(source: Path, **options: Any) -> SeriesDataModule:
    defaults = {
        "horizon": 5,
        "num_channels": 2,
        "time_column": "day",
        "window": 9,
        "val_share": 0.2,
        "test_share": 0.3,
    }
    return SeriesDataModule(str(source), **{**defaults, **options})


def forecaster(channels: int = 2, **options: Any) -> Forecaster:
    torch.manual_seed(1)
    defaults = {"hidden_size": 6, "num_layers": 1, "optimization": Optimization(learning_rate=0.01)}
    return Forecaster(channels, **{**defaults, **options})


def save_forecaster(
    make_trainer: Callable[..., pl.Trainer],
    data: pl.LightningDataModule,
    path: Path,
    channels: int = 2,
    **options: Any,
) -> Path:
    """Train two steps, and write the checkpoint; return its path."""
    fitting = make_trainer(max_steps=2, limit_val_batches=0)
    fitting.fit(forecaster(channels, **options), data)
    fitting.save_checkpoint(path)
    return path


def scaled_forecaster(channels: int = 2, **options: Any) -> Forecaster:
    """Return one of two layers, for series around 50."""
    task = forecaster(channels, **{"hidden_size": 5, "num_layers": 2, **options}).eval()
    task.series_mean.copy_(torch.arange(channels) * 10.0 + 50)
    task.series_std.copy_(torch.arange(channels) * 2.0 + 3)
    return task


def series(rows: int = ROWS, steps: int = STEPS, channels: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(rows, steps, channels, generator=generator, dtype=torch.float64)
    return 50 + 5 * noise


def waves(**options: Any) -> SineDataModule:
    sizes = {"train_waves": 5, "val_waves": 2, "test_waves": 3, "length": 24, "horizon": 9}
    return SineDataModule(**{**sizes, "period": 3, **options})


def batch_of(
    values: Tensor, is_known: Tensor | None = None, is_continued: bool = False
) -> SeriesBatch:
    """Return a batch for training."""
    is_known = torch.ones_like(values).bool() if is_known is None else is_known
    indices = torch.arange(len(values))
    return SeriesBatch(values, is_known, indices, values.shape[1], is_continued)


class OneProcess:
    """Stands in for the trainer, where a step is taken by hand."""

    world_size = 1
    global_step = 0
    global_rank = 0


def by_hand(task: Forecaster, monkeypatch: pytest.MonkeyPatch) -> Forecaster:
    """Let a task take training steps without a trainer."""
    monkeypatch.setattr(type(task), "trainer", OneProcess())
    monkeypatch.setattr(type(task), "global_step", 0)
    monkeypatch.setattr(task, "log", lambda *_args, **_options: None)
    return task.train()
