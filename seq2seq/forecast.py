"""``seq2seq-predict`` for series: how they go on, as a table and a picture."""

import csv
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import torch
from jsonargparse import ArgumentParser

from seq2seq.batches import Forecast
from seq2seq.errors import ConfigError, DataError
from seq2seq.predictor import Device, find_device, load_task
from seq2seq.series import Missing, Series, read_series
from seq2seq.series.continuation import continue_times
from seq2seq.series_figures import BAND_DEVIATIONS, forecast_figure
from seq2seq.tasks.forecasting import Forecaster
from seq2seq.tasks.learning import LearningTask

# What `seq2seq-predict` takes for series alone, and what for them, too.
_OWN_OPTIONS = ("horizon", "columns", "time_column", "missing", "plot")
_SHARED_OPTIONS = ("ckpt_path", "input", "output", "device", "seed")


def add_forecast_arguments(parser: ArgumentParser) -> None:
    """Add to ``seq2seq-predict`` what is for series alone."""
    parser.add_argument(
        "--horizon",
        type=int | None,
        default=None,
        help=(
            "For series: how many steps to go on. The input is a .csv, .tsv, .txt, .npy or .npz "
            "file; the output is CSV, with the ends of a band of 90 % as _low and _high where the "
            "model knows them."
        ),
    )
    parser.add_argument(
        "--columns",
        type=list[str] | None,
        default=None,
        help="For series: names of the columns to read, in order; those of training when null.",
    )
    parser.add_argument(
        "--time_column",
        type=str | None,
        default=None,
        help="For series: name of the column with the times; that of training when null.",
    )
    parser.add_argument(
        "--missing",
        type=Missing,
        default="error",
        help=(
            "For series: whether missing values are an error, are filled in from their neighbours "
            "(interpolate), or are read as what the model predicts for them (keep)."
        ),
    )
    parser.add_argument(
        "--plot", type=str | None, default=None, help="For series: picture to write."
    )


def check_options(task: LearningTask, given: Collection[str]) -> None:
    """Refuse options of ``seq2seq-predict`` that the task would ignore.

    Args:
        task: What was loaded.
        given: Names of the options that have not their default values.

    Raises:
        ConfigError: If there are such options, or a forecaster has no horizon.
    """
    name = type(task).__name__
    if not isinstance(task, Forecaster):
        if foreign := [option for option in _OWN_OPTIONS if option in given]:
            raise ConfigError(
                f"{_listed(foreign)}: for series, and this is a checkpoint of the task {name}. "
                "Leave it out."
            )
        return
    allowed = {*_OWN_OPTIONS, *_SHARED_OPTIONS}
    if foreign := sorted(option for option in given if option not in allowed):
        raise ConfigError(
            f"{_listed(foreign)}: not for series, and this is a checkpoint of the task {name}. "
            "Leave it out."
        )
    if "horizon" not in given:
        raise ConfigError("This checkpoint forecasts series: set --horizon, the number of steps.")


def _listed(options: Sequence[str]) -> str:
    return ", ".join(f"--{option}" for option in options)


class ForecastOptions(NamedTuple):
    """What a forecast is made from.

    Attributes:
        horizon: How many steps to go on.
        columns: Names of the columns that are the model's channels, in their order; those of the
            training data when None.
        time_column: Name of the column that tells the time; that of the training data when None.
        missing: What becomes of values that are missing: an ``error``, filled in by
            ``interpolate``, or, with ``keep``, read as what the model predicts for them.
        seed: Of the futures that a band is drawn from.
    """

    horizon: int
    columns: Sequence[str] | None = None
    time_column: str | None = None
    missing: Missing = "error"
    seed: int = 1


def load_forecaster(path: str | Path, device: Device = "auto") -> Forecaster:
    """Return the forecaster of a checkpoint, ready for ``forecast``.

    Args:
        path: A ``.ckpt`` file that ``seq2seq fit`` wrote.
        device: Where to run; ``auto`` takes a GPU if there is one.

    Raises:
        CheckpointError: If the file cannot be used; see ``seq2seq.predictor.load_task``.
        ConfigError: If it is of a task that does not forecast, or there is no such device.
    """
    task = load_task(path)
    if not isinstance(task, Forecaster):
        raise ConfigError(
            f"{path}: is a checkpoint of the task {type(task).__name__}, which does not forecast. "
            "Use seq2seq.load."
        )
    return task.to(find_device(device)).eval()


class FileForecast(NamedTuple):
    """A forecast of a file.

    Attributes:
        series: What was read.
        forecast: How it goes on; a batch of one, ``(1, horizon, channels)``.
        times: When the steps of the series and of the forecast are; None where it is not known.
    """

    series: Series
    forecast: Forecast
    times: tuple[str, ...] | None


def forecast_file(task: Forecaster, source: str, options: ForecastOptions) -> FileForecast:
    """Read a file and forecast how its series go on.

    Where the channels of the training data had no names, as each column was a series of its own,
    so is each column of the file.

    Args:
        task: The model.
        source: A file as ``seq2seq.series.read_series`` takes it.
        options: What to do.

    Raises:
        ConfigError: If the horizon is less than 1.
        DataError: If the file cannot be used, or has not the columns that the model was trained on.
    """
    if options.horizon < 1:
        raise ConfigError(f"--horizon {options.horizon} must be at least 1.")
    series = _read(task, source, options)
    are_alone = not task.channel_names
    values, is_known = (
        (part.T.unsqueeze(2) if are_alone else part.unsqueeze(0)).to(task.device)
        for part in (series.values, series.is_known)
    )  # (batch, time, channels)
    if values.shape[2] != task.num_channels:
        raise DataError(
            f"{source}: {values.shape[2]} columns are read ({', '.join(series.names)}), and the "
            f"checkpoint was trained on {task.num_channels}. Name as many with --columns."
        )
    try:
        found = task.forecast(values, is_known, options.horizon, seed=options.seed)
    except ConfigError as error:
        raise DataError(f"{source}: {error}") from error
    if are_alone:
        deviation = None if found.deviation is None else found.deviation.permute(2, 1, 0)
        found = Forecast(found.values.permute(2, 1, 0), deviation, found.one_step.permute(2, 1, 0))
    following = None if series.times is None else continue_times(series.times, options.horizon)
    times = None if following is None or series.times is None else (*series.times, *following)
    return FileForecast(series, found, times)


def _read(task: Forecaster, source: str, options: ForecastOptions) -> Series:
    try:
        return read_series(
            source,
            columns=options.columns or task.channel_names or None,
            time_column=options.time_column or task.time_column,
            missing=options.missing,
        )
    except DataError as error:
        if options.columns is not None or not task.channel_names or not Path(source).is_file():
            raise
        # The columns that it misses may be those that nobody has named here.
        names = ", ".join(map(repr, task.channel_names))
        raise DataError(
            f"{error} (The checkpoint was trained on {names}; --columns names those to read "
            "instead.)"
        ) from error


def write_forecast(found: FileForecast, output: TextIO) -> None:
    """Write a forecast as CSV: a row for each step, with the time or else its number from 1.

    With a band, each column is followed by ``_low`` and ``_high``, the ends of its 90 %.
    """
    series, forecast = found.series, found.forecast
    start = len(series.values)
    parts, suffixes = [forecast.values[0]], [""]
    if forecast.deviation is not None:
        reach = BAND_DEVIATIONS * forecast.deviation[0]
        parts += [parts[0] - reach, parts[0] + reach]
        suffixes += ["_low", "_high"]
    table = torch.stack(parts, dim=2).flatten(1).tolist()  # (horizon, channels * parts)
    writer = csv.writer(output, lineterminator="\n")
    names = [f"{name}{suffix}" for name in series.names for suffix in suffixes]
    writer.writerow(["step" if found.times is None else "time", *names])
    for step, row in enumerate(table, start):
        time = step + 1 if found.times is None else found.times[step]
        writer.writerow([time, *(f"{value:.10g}" for value in row)])


def plot_forecast(found: FileForecast, path: str, title: str) -> None:
    """Draw a forecast into a file.

    Args:
        found: What to draw.
        path: The file; its ending says which format.
        title: What stands above.

    Raises:
        ConfigError: If there is no such format.
        DataError: If the file cannot be written.
    """
    series = found.series
    figure = forecast_figure(
        series.values,
        series.is_known,
        found.forecast,
        start=len(series.values),
        names=series.names,
        times=found.times,
        title=title,
    )
    try:
        figure.savefig(path)
    except ValueError as error:
        raise ConfigError(f"--plot {path}: {error}. Let it end in .png.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}.") from error
