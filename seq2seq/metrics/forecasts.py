"""The errors of forecasts, exact over batches and processes."""

import torch
from torch import Tensor, nn
from torchmetrics import MaxMetric

from seq2seq.batches import SeriesBatch
from seq2seq.metrics.loss import CorpusLoss


class ForecastMetrics(nn.Module):
    """Errors on the steps after the warm-up, over the values that are known, in their units.

    They are ``one_step_mse`` (each step predicted from the true ones before it),
    ``free_running_mse`` and ``mae`` (running free from the warm-up on), ``worst_free_running_mse``
    (the largest of a window), and, where there is a naive forecast, ``seasonal_naive_mse`` and
    ``seasonal_naive_mae``. They are not a number where no value is known, or a forecast is none.
    """

    def __init__(self) -> None:
        super().__init__()
        names = ("one_step_mse", "free_running_mse", "mae")
        naive_names = ("seasonal_naive_mse", "seasonal_naive_mae")
        self._means = nn.ModuleDict({name: CorpusLoss() for name in (*names, *naive_names)})
        self._worst = MaxMetric(nan_strategy="disable")  # else it leaves NaN out

    def update(
        self, batch: SeriesBatch, one_step: Tensor, free: Tensor, naive: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            batch: The windows.
            one_step: Predictions of the steps after the warm-up, ``(batch, horizon, channels)``.
            free: Forecast of them.
            naive: What last season had there; None where there is no season.
        """
        truth = batch.values[:, batch.warm_up :]
        is_known = batch.is_known[:, batch.warm_up :]
        squares = torch.where(is_known, free - truth, 0.0).square()
        self._add("one_step_mse", (one_step - truth)[is_known].square(), batch.indices)
        self._add("free_running_mse", squares[is_known], batch.indices)
        self._add("mae", (free - truth)[is_known].abs(), batch.indices)
        counts = is_known.sum(dim=(1, 2))
        means = squares.sum(dim=(1, 2)) / counts.clamp(min=1)
        self._worst.update(means.where(counts > 0, -torch.inf))  # less than any error
        if naive is not None:
            errors = (naive - truth)[is_known]
            self._add("seasonal_naive_mse", errors.square(), batch.indices)
            self._add("seasonal_naive_mae", errors.abs(), batch.indices)

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics of all that was added, by name, and forget it.

        With several processes this is a collective call.
        """
        found = {}
        for name, metric in [*self._means.items(), ("worst_free_running_mse", self._worst)]:
            assert isinstance(metric, CorpusLoss | MaxMetric)
            if metric.update_called:
                found[name] = metric.compute()
        if "worst_free_running_mse" in found:
            worst = found["worst_free_running_mse"]  # below 0 where no window has a known value
            found["worst_free_running_mse"] = worst.where(worst >= 0, torch.nan)
        self.reset()
        return found

    def reset(self) -> None:
        """Forget all that was added."""
        for metric in [*self._means.values(), self._worst]:
            assert isinstance(metric, CorpusLoss | MaxMetric)
            metric.reset()

    def _add(self, name: str, errors: Tensor, indices: Tensor) -> None:
        metric = self._means[name]
        assert isinstance(metric, CorpusLoss)
        metric.update(errors.sum() / max(1, len(errors)), len(errors), indices)
