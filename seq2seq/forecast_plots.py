"""Forecasts of the test windows, as pictures."""

import warnings
from pathlib import Path
from typing import NamedTuple

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from seq2seq.batches import SeriesBatch
from seq2seq.callbacks import tensorboard_writer
from seq2seq.errors import DataError
from seq2seq.series_figures import forecast_figure
from seq2seq.tasks.forecasting import Forecaster


class _Window(NamedTuple):
    values: Tensor
    is_known: Tensor
    warm_up: int


class ForecastPlots(Callback):
    """Draws truth, prediction one step ahead and forecast of the first test windows.

    It does so after every validation, too: they show how learning goes, and decide nothing. Each
    goes to TensorBoard, and as ``forecast_test_1.png``, ... into the run's folder. Tasks that do
    not forecast have none.

    Args:
        windows: Number of windows; all of them where there are fewer.
    """

    def __init__(self, windows: int = 3) -> None:
        self.windows = windows

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw what the model makes of them now, unless it is only tried out."""
        if not trainer.sanity_checking:
            self._draw(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw what was tested."""
        self._draw(trainer, pl_module)

    def _draw(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if not isinstance(task, Forecaster) or not trainer.is_global_zero:
            return
        writer = tensorboard_writer(trainer)
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        for number, window in enumerate(self._windows(trainer), start=1):
            title = f"test window {number}"
            if trainer.global_step:  # not where a checkpoint is tested
                title += f", epoch {trainer.current_epoch}, step {trainer.global_step}"
            values, is_known = window.values.to(task.device), window.is_known.to(task.device)
            start = window.warm_up
            forecast = task.forecast(
                values[:, :start], is_known[:, :start], values.shape[1] - start
            )
            whole = task.forecast(values, is_known)  # one step ahead beyond the warm-up, too
            figure = forecast_figure(
                values[0],
                is_known[0],
                forecast._replace(one_step=whole.one_step),
                start=start,
                names=task.channel_names,
                title=title,
            )
            with warnings.catch_warnings():
                # A letter that the font lacks is seen as a box.
                warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
                figure.savefig(folder / f"forecast_test_{number}.png")
                if writer is not None:
                    writer.add_figure(f"test/forecast/{number}", figure, trainer.global_step)

    def _windows(self, trainer: pl.Trainer) -> list[_Window]:
        """Return the first windows, each a batch of one."""
        data = getattr(trainer, "datamodule", None)
        if data is None:
            return []
        try:
            loader = data.test_dataloader()
        except DataError:  # no test split: the data module says so to whoever tests
            return []
        found: list[_Window] = []
        for batch in loader:
            assert isinstance(batch, SeriesBatch)
            found += [
                _Window(values.unsqueeze(0), is_known.unsqueeze(0), batch.warm_up)
                for values, is_known in zip(batch.values, batch.is_known, strict=True)
            ]
            if len(found) >= self.windows:
                break
        return found[: self.windows]
