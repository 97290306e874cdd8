from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_series import forecaster, module, write_table

import seq2seq.forecast_plots
from datamodules.waves import SineDataModule
from seq2seq.batches import Forecast
from seq2seq.forecast_plots import ForecastPlots
from seq2seq.series_figures import forecast_figure


def waves(**options):
    sizes = {"train_waves": 4, "val_waves": 2, "test_waves": 5, "length": 11, "horizon": 6}
    return SineDataModule(**{**sizes, "eval_batch_size": 2, **options})


def written(folder):
    return [path.name for path in sorted(Path(folder).glob("*.png"))]


@pytest.fixture
def drawn(monkeypatch):
    """Return what was drawn."""
    calls, draw = [], seq2seq.forecast_plots.forecast_figure

    def noted(*arguments, **options):
        calls.append((*arguments, options))
        return draw(*arguments, **options)

    monkeypatch.setattr(seq2seq.forecast_plots, "forecast_figure", noted)
    return calls


@pytest.fixture
def logger(tmp_path):
    return TensorBoardLogger(tmp_path / "logs", name=None, version="")


def logged_images(logger):
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir).Reload()
    return {name: [each.step for each in events.Images(name)] for name in events.Tags()["images"]}


def test_each_test_wave_is_drawn_after_every_epoch_and_test(make_trainer, drawn, logger, tmp_path):
    task, data = forecaster(1), waves()
    fitting = make_trainer(
        max_epochs=2, logger=logger, log_every_n_steps=1, callbacks=[ForecastPlots(3)]
    )
    fitting.fit(task, data)
    assert written(tmp_path) == [f"forecast_test_{number}.png" for number in (1, 2, 3)]
    fitting.test(task, data, verbose=False)
    names = [f"test/forecast/{number}" for number in (1, 2, 3)]
    assert logged_images(logger) == {name: [1, 2, 2] for name in names}
    data.setup("test")
    truth = torch.cat([batch.values for batch in data.test_dataloader()])
    for place, (values, is_known, forecast, options) in enumerate(drawn[-3:]):
        assert torch.equal(values, truth[place])
        assert is_known.all()
        assert options["start"] == 11
        assert options["title"] == f"test window {place + 1}, epoch 2, step 2"
        read = truth[place : place + 1]
        expected = task.eval().forecast(read[:, :11], horizon=6)
        assert torch.equal(forecast.values, expected.values)
        assert torch.equal(forecast.one_step[:, 1:], task.forecast(read).one_step[:, 1:])
    with Image.open(tmp_path / "forecast_test_1.png") as picture:
        assert min(picture.size) > 300


class Watch(Callback):
    """Notes what is written when training begins."""

    def on_train_start(self, trainer, pl_module):
        del pl_module
        self.found = written(trainer.default_root_dir)


def test_what_was_only_tried_out_is_not_drawn(make_trainer):
    watch = Watch()
    trying = make_trainer(max_steps=1, num_sanity_val_steps=1, callbacks=[ForecastPlots(), watch])
    trying.fit(forecaster(1), waves())
    assert watch.found == []


def test_without_a_test_split_or_a_forecast_nothing_is_drawn(
    make_trainer, make_dates, make_translator, tmp_path
):
    checking = make_trainer(callbacks=[ForecastPlots()], limit_val_batches=1)
    checking.validate(forecaster(1), waves(test_waves=0), verbose=False)
    checking.validate(make_translator(), make_dates(), verbose=False)
    assert written(tmp_path) == []


def test_a_series_of_a_file_is_drawn_with_its_names_and_band(make_trainer, drawn, tmp_path):
    data = module(write_table(tmp_path))
    checking = make_trainer(callbacks=[ForecastPlots(1)])
    checking.validate(forecaster(head="gaussian"), data, verbose=False)
    [(_, _, forecast, options)] = drawn
    assert options["names"] == ("warm", "cold")
    assert options["title"] == "test window 1"
    assert forecast.deviation.shape == forecast.values.shape == (1, 5, 2)


# The figure.


def lines(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def example(read=130, horizon=4, channels=2, known_truth=True):
    values = torch.arange(read + horizon)[:, None] + torch.tensor([0.0, 100.0])[:channels]
    values = values[: None if known_truth else read]
    one_step = values[None] + 0.5
    forecast = Forecast(
        torch.full((1, horizon, channels), 7.0), torch.full((1, horizon, channels), 2.0), one_step
    )
    return values, torch.ones_like(values).bool(), forecast


def test_the_figure_shows_the_end_of_what_was_read_the_forecast_its_band_and_both_errors():
    values, is_known, forecast = example()
    is_known[120, 0] = False
    figure = forecast_figure(values, is_known, forecast, start=130, names=("a", "b"), title="$t")
    first, errors, second, _ = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == ["a", "error", "b", "error"]
    shown = lines(first)
    truth = shown["truth"]
    assert truth.get_xdata().tolist() == list(range(30, 134))
    assert torch.tensor(truth.get_ydata()).isnan().nonzero().tolist() == [[90]]
    free = shown["running free"]
    assert free.get_xdata().tolist() == [130, 131, 132, 133]
    assert set(free.get_ydata()) == {7.0}
    band = first.collections[0].get_datalim(first.transData)
    assert (band.y0, band.y1) == pytest.approx((7 - 3.29, 7 + 3.29))
    one_step_error, free_error = errors.lines[:2]
    assert set(one_step_error.get_ydata()[:90]) == {0.5}
    assert free_error.get_ydata().tolist() == [7 - step for step in range(130, 134)]
    assert lines(second)["one step ahead"].get_ydata()[-1] == 233.5
    assert figure.get_suptitle() == "$t"


def test_without_the_truth_there_are_no_errors_and_times_are_shown():
    values, is_known, forecast = example(read=6, channels=1, known_truth=False)
    times = [f"day {number}" for number in range(10)]
    figure = forecast_figure(
        values, is_known, forecast._replace(deviation=None), start=6, times=times
    )
    [axes] = figure.axes
    figure.canvas.draw()
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert set(labels) <= set(times)
    assert len(labels) > 3
    assert not axes.collections
    assert {"series", "one step ahead", "running free"} == set(lines(axes))


def test_a_forecast_of_one_step_can_be_seen_and_many_channels_are_not_all_drawn():
    values = torch.zeros(9, 8)
    forecast = Forecast(torch.ones(1, 1, 8), None, values[None])
    figure = forecast_figure(values, values == 0, forecast, start=9)
    assert len(figure.axes) == 6
    assert lines(figure.axes[0])["running free"].get_marker() == "."
