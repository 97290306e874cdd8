"""Forecasting: the shared decoder over values instead of tokens."""

from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional

from seq2seq.batches import Forecast, SeriesBatch
from seq2seq.checkpoints import CHECKPOINT_KEY
from seq2seq.decoders.series import Head, SeriesDecoder, SeriesOutput, SeriesState
from seq2seq.errors import CheckpointError, ConfigError, raise_together
from seq2seq.metrics.forecasts import ForecastMetrics
from seq2seq.metrics.naive import seasonal_naive
from seq2seq.nn.recurrent import Cell
from seq2seq.series import SeriesScaling
from seq2seq.tasks.forecasting_options import check_precision, option_problems
from seq2seq.tasks.learning import LearningTask
from seq2seq.tasks.options import Optimization, TeacherForcing

NOT_SAVED = ("optimization", "teacher_forcing", "init_from")
"""Arguments kept out of a checkpoint: the user's to choose anew in every run."""


class Forecaster(LearningTask):
    """Recurrent network that predicts the next values of a series, and runs free on its own.

    It learns one step ahead. Inside, series are standardised by the scaling of the training data;
    a missing value is read as what was predicted for it.

    Args:
        num_channels: Number of values at each step; taken from the data module.
        hidden_size: Width of the recurrent state.
        num_layers: Number of recurrent layers.
        cell: ``rnn`` (tanh), ``gru`` or ``lstm``.
        head: ``value`` learns a number by its squared error; ``gaussian`` a mean and a standard
            deviation by their likelihood, so that a forecast has a band.
        residual: Let the network give the change since the step before instead of the value.
        difference: Let it read and predict the change against the value this many steps ago: 1
            takes out a trend, the length of a season that season; 0 for the value itself.
        dropout: Dropout between layers and before the output layer.
        layer_norm: Normalise the output of every recurrent layer.
        optimization: Optimiser, learning rate and its schedule.
        teacher_forcing: How often the true value is read in training, and else what was predicted
            for it; through that, unlike a token, gradients pass. Its method is ``step``.
        init_from: Checkpoint whose weights and scaling a new training starts from.

    Raises:
        ConfigError: If options do not fit together; all problems at once.
    """

    monitor: ClassVar[str] = "val/free_running_mse"
    monitor_mode: ClassVar[Literal["min", "max"]] = "min"

    series_mean: Tensor
    series_std: Tensor

    def __init__(
        self,
        num_channels: int,
        hidden_size: int = 64,
        num_layers: int = 2,
        cell: str = "lstm",
        head: str = "value",
        residual: bool = True,
        difference: int = 0,
        dropout: float = 0.0,
        layer_norm: bool = False,
        optimization: Optimization = Optimization(),  # noqa: B008  # frozen
        teacher_forcing: TeacherForcing = TeacherForcing(method="step"),  # noqa: B008
        init_from: str | None = None,
    ) -> None:
        problems = option_problems(
            {"num_channels": num_channels, "hidden_size": hidden_size, "num_layers": num_layers},
            cell=cell,
            head=head,
            difference=difference,
            dropout=dropout,
            optimization=optimization,
            teacher_forcing=teacher_forcing,
        )
        raise_together(problems, ConfigError, "The forecaster cannot be built:")
        super().__init__(
            optimization=optimization, teacher_forcing=teacher_forcing, init_from=init_from
        )
        self.save_hyperparameters(ignore=NOT_SAVED)
        self.num_channels = num_channels
        self.decoder = SeriesDecoder(
            num_channels,
            hidden_size=hidden_size,
            num_layers=num_layers,
            cell=cast(Cell, cell),
            head=cast(Head, head),
            residual=residual,
            difference=difference,
            dropout=dropout,
            layer_norm=layer_norm,
        )
        # In double precision whatever the weights have: levels may be large and changes small.
        self.register_buffer("series_mean", torch.zeros(num_channels, dtype=torch.float64))
        self.register_buffer("series_std", torch.ones(num_channels, dtype=torch.float64))
        self.channel_names: tuple[str, ...] = ()
        self.time_column: str | None = None
        self._carried: SeriesState | None = None  # into the present batch
        self._following: SeriesState | None = None  # out of it
        self._metrics = ForecastMetrics()

    # What the data module and the checkpoint bring.

    def expected_vocab_sizes(self) -> dict[str, int]:
        """Return nothing: values are no tokens."""
        return {}

    def setup(self, stage: str) -> None:
        """Take over the scaling and the names of the channels.

        Raises:
            ConfigError: If the data have another number of channels, or the trainer rounds them.
        """
        check_precision(self.trainer)
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        scaling: SeriesScaling | None = getattr(data, "scaling", None)
        if scaling is None:
            return
        if len(scaling.mean) != self.num_channels:
            raise ConfigError(
                f"The data have {len(scaling.mean)} channels, the model {self.num_channels}. Set "
                "--data.num_channels; the model takes it from there."
            )
        self.series_mean.copy_(scaling.mean)
        self.series_std.copy_(scaling.std)
        self.channel_names = scaling.names
        self.time_column = getattr(data, "time_column", None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put in the names of the channels, and the state that the next chunk goes on from."""
        super().on_save_checkpoint(checkpoint)
        own = None if self._following is None else self._following.pack()
        states = [own] * _processes()
        if len(states) > 1:
            torch.distributed.all_gather_object(states, own)
        checkpoint[CHECKPOINT_KEY]["series"] = {
            "channel_names": list(self.channel_names),
            "time_column": self.time_column,
            "states": states,  # of each process
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them out again.

        Raises:
            CheckpointError: If it is of another task, or of other channels than the data.
        """
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint[CHECKPOINT_KEY]["series"]
        names = tuple(saved["channel_names"])
        if self.channel_names and names and names != self.channel_names:
            raise CheckpointError(
                f"The checkpoint was trained on the channels {', '.join(names)}, and the data have "
                f"{', '.join(self.channel_names)}. Set --data.columns to the checkpoint's."
            )
        self.channel_names = names
        self.time_column = saved["time_column"]
        saved_weights = checkpoint["state_dict"].items()
        if any(
            name.startswith("decoder.") and part.dtype == torch.float64
            for name, part in saved_weights
        ):
            self.double()  # over many steps of a forecast, roundings add up
        states = saved["states"]
        # Another number of processes has other rows in each.
        own = states[self.global_rank] if len(states) == _processes() else None
        self._following = None if own is None else SeriesState.unpack(own)

    # Training.

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Carry the state over; the optimiser may ask for the loss of a batch several times."""
        super().on_train_batch_start(batch, batch_idx)
        self._carried = self._following

    def training_step(self, batch: SeriesBatch, batch_number: int) -> Tensor:
        """Return the mean loss of the next values that are known, over all ranks.

        The squared error is that of standardised values.

        Raises:
            CheckpointError: If a chunk has to go on from a state that the checkpoint has not.
            ConfigError: If a window has nothing to predict.
        """
        values, is_known = self._standardize(batch.values), batch.is_known
        if batch.is_continued:
            if self._carried is None:
                raise CheckpointError(
                    "The checkpoint is from the middle of a series, and of another number of "
                    "processes. Set --trainer.devices and --trainer.num_nodes as they were."
                )
            state = self._carried.to(values)
        else:
            values, is_known, state = self._begin(values, is_known)
        ratio = self.forcing_ratio()
        is_read = is_known
        if ratio < 1:
            generator = torch.Generator(self.device).manual_seed(self.choice_seed(batch_number))
            chances = torch.rand(values.shape[:2], generator=generator, device=self.device)
            is_read = is_known & (chances < ratio).unsqueeze(2)
        output: SeriesOutput = self.decoder(values, is_read, state)
        self._following = output.state.detach()
        total = self._loss(output, values)[is_known].sum()
        summed, count = self.mean_over_ranks(total, is_known.sum().to(total.dtype))
        count = count.clamp(min=1 / self.trainer.world_size)  # where no rank knows a value
        self.log("train/loss", summed / count, prog_bar=True)
        return total / count

    def _loss(self, output: SeriesOutput, values: Tensor) -> Tensor:
        if output.deviation is None:
            return (output.values - values).square()
        variance = output.deviation.square()
        return functional.gaussian_nll_loss(
            output.values, values, variance, full=True, eps=0.0, reduction="none"
        )

    # Evaluation: one step ahead, and free from the end of the warm-up.

    def validation_step(self, batch: SeriesBatch, *_: int) -> None:
        """Add a batch to the metrics."""
        self._evaluate(batch)

    def test_step(self, batch: SeriesBatch, *_: int) -> None:
        """Add a batch to the metrics."""
        self._evaluate(batch)

    def _evaluate(self, batch: SeriesBatch) -> None:
        start = batch.warm_up
        values = self._standardize(batch.values)
        read = self._read(values[:, :start], batch.is_known[:, :start])
        is_known = batch.is_known[:, start:]
        one_step: SeriesOutput = self.decoder(values[:, start:], is_known, read.state)
        free = self.decoder.run_free(read.state, is_known.shape[1])
        season = getattr(getattr(self.trainer, "datamodule", None), "season", None)
        naive = None
        if season is not None:
            naive = seasonal_naive(batch.values, batch.is_known, start, season)
        one_step_values, free_values = map(self._restore, (one_step.values, free.values))
        self._metrics.update(batch, one_step_values, free_values, naive)

    def compute_metrics(self) -> dict[str, Tensor]:
        """Return the errors of all windows, and forget them."""
        return self._metrics.compute()

    def reset_metrics(self) -> None:
        """Forget all errors."""
        self._metrics.reset()

    # Forecasting.

    @torch.inference_mode()
    def forecast(
        self,
        values: Tensor,
        is_known: Tensor | None = None,
        horizon: int = 1,
        *,
        paths: int = 200,
        seed: int = 1,
    ) -> Forecast:
        """Read series, and go on from there without looking at anything but the own outputs.

        With a Gaussian head the values are what follows where each step takes its mean, and the
        deviation is the root mean square distance of drawn futures from them. All rows of a batch
        share their random numbers: a row's forecast does not depend on the others.

        Args:
            values: Steps that are known, ``(batch, time, channels)``, in the units of the data.
            is_known: False where a value is missing, bool, of the same shape; all are known when
                None.
            horizon: How many steps to go on.
            paths: Number of futures to draw.
            seed: Of the draws.

        Raises:
            ConfigError: If the horizon or the number of futures is less than 1, or the series has
                other channels than the model or is too short to begin.
        """
        is_known = torch.ones_like(values, dtype=torch.bool) if is_known is None else is_known
        problems = [
            f"{name}={number} must be at least 1."
            for name, number in (("horizon", horizon), ("paths", paths))
            if number < 1
        ]
        if values.shape[2] != self.num_channels:
            problems.append(
                f"the series has {values.shape[2]} channels, the model {self.num_channels}."
            )
        raise_together(problems, ConfigError, "There can be no forecast:")
        read = self._read(self._standardize(values), is_known)
        free = self.decoder.run_free(read.state, horizon)
        deviation = None
        if self.decoder.is_gaussian:
            deviation = self.decoder.spread(read.state, free.values, paths, seed) * self.series_std
        return Forecast(self._restore(free.values), deviation, self._restore(read.values))

    # Inside.

    def _standardize(self, values: Tensor) -> Tensor:
        scaled = (values.to(self.series_mean.dtype) - self.series_mean) / self.series_std
        return scaled.to(next(self.parameters()).dtype)

    def _restore(self, values: Tensor) -> Tensor:
        return values.to(self.series_mean.dtype) * self.series_std + self.series_mean

    def _begin(self, values: Tensor, is_known: Tensor) -> tuple[Tensor, Tensor, SeriesState]:
        """Return what can be predicted of windows, and the state before it."""
        lead = self.decoder.lead
        if values.shape[1] <= lead:
            raise ConfigError(
                f"Windows of {values.shape[1]} steps have nothing to predict, as the first {lead} "
                "are needed to begin. Raise --data.window or --data.tbptt_steps, or lower "
                "--model.difference."
            )
        state = self.decoder.begin(values[:, :lead], is_known[:, :lead])
        return values[:, lead:], is_known[:, lead:], state

    def _read(self, values: Tensor, is_known: Tensor) -> SeriesOutput:
        """Predict each step of a series from those before it; not a number at the first ones."""
        lead = self.decoder.lead
        if values.shape[1] < lead:
            raise ConfigError(
                f"The series has {values.shape[1]} steps, and the model needs {lead} to begin. "
                f"Give {lead} or more: a longer file, or in training a larger --data.warm_up. How "
                "many are needed is decided in training, by --model.difference."
            )
        state = self.decoder.begin(values[:, :lead], is_known[:, :lead])
        nothing = torch.full_like(values[:, :lead], torch.nan)
        if values.shape[1] == lead:
            return SeriesOutput(nothing, None, state)
        output: SeriesOutput = self.decoder(values[:, lead:], is_known[:, lead:], state)
        return output._replace(values=torch.cat([nothing, output.values], dim=1))


def _processes() -> int:
    """Return how many processes train together."""
    distributed = torch.distributed
    is_running = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if is_running else 1
