import math
from dataclasses import replace

import pytest
import torch
from toy_series import ROWS, STEPS, batch_of, by_hand, series, waves
from toy_series import scaled_forecaster as forecaster

from datamodules.series import SeriesDataModule
from seq2seq.errors import ConfigError
from seq2seq.metrics.naive import seasonal_naive
from seq2seq.tasks.options import TeacherForcing

HORIZON = 7
SAMPLING = TeacherForcing(ratio=0.6, method="step")


# The loss.


def test_the_loss_is_the_squared_error_of_standardised_values_one_step_ahead(monkeypatch):
    task, values = by_hand(forecaster(), monkeypatch), series()
    predicted = task.forecast(values).one_step[:, 1:]
    expected = ((predicted - values[:, 1:]) / task.series_std).square().mean()
    loss = task.training_step(batch_of(values), 0)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)


def test_the_gaussian_loss_is_the_negative_log_likelihood(monkeypatch):
    task, values = by_hand(forecaster(head="gaussian"), monkeypatch), series()
    scaled = task._standardize(values)
    known = torch.ones_like(scaled).bool()
    output = task.decoder(scaled[:, 1:], known[:, 1:], task.decoder.begin(scaled[:, :1], known))
    likelihood = torch.distributions.Normal(output.values, output.deviation)
    expected = -likelihood.log_prob(scaled[:, 1:]).mean()
    torch.testing.assert_close(task.training_step(batch_of(values), 0), expected)


def test_what_is_missing_counts_for_nothing(monkeypatch):
    task, values = by_hand(forecaster(), monkeypatch), series()
    is_known = torch.rand(values.shape, generator=torch.Generator().manual_seed(3)) < 0.6
    loss = task.training_step(batch_of(values, is_known), 0)
    other = task.training_step(batch_of(values.masked_fill(~is_known, 1e6), is_known), 0)
    assert torch.equal(loss, other)
    assert torch.isfinite(loss)
    nothing = task.training_step(batch_of(values, torch.zeros_like(is_known)), 0)
    assert nothing == 0


def test_units_do_not_matter_to_what_is_learned(monkeypatch):
    task, values = by_hand(forecaster(), monkeypatch), series()
    loss = task.training_step(batch_of(values), 0)
    task.series_mean.mul_(1000).add_(7)
    task.series_std.mul_(1000)
    torch.testing.assert_close(task.training_step(batch_of(values * 1000 + 7), 0), loss)


def test_scheduled_sampling_reads_own_outputs_and_chooses_alike_for_each_evaluation(monkeypatch):
    task, values = forecaster(teacher_forcing=SAMPLING), series()
    by_hand(task, monkeypatch)
    losses = [task.training_step(batch_of(values), number) for number in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    task.teacher_forcing = replace(SAMPLING, ratio=0.0)
    state = task.decoder.begin(*(part[:, :1] for part in (task._standardize(values), values > 0)))
    free = task.decoder.run_free(state, STEPS - 1).values
    expected = (free - task._standardize(values)[:, 1:]).square().mean()
    torch.testing.assert_close(task.training_step(batch_of(values), 0), expected)


def test_sampling_in_two_passes_is_refused():
    with pytest.raises(ConfigError, match=r"--model\.teacher_forcing\.method step"):
        forecaster(teacher_forcing=TeacherForcing(ratio=0.5))


# Forecasts.


@pytest.mark.parametrize("options", [{}, {"head": "gaussian"}, {"difference": 3}, {"cell": "gru"}])
def test_a_forecast_is_a_plain_loop_over_one_step_predictions(options):
    task, values = forecaster(**options).double(), series()
    known = values
    for _ in range(HORIZON):
        following = task.forecast(known, horizon=1).values
        known = torch.cat([known, following], dim=1)
    forecast = task.forecast(values, horizon=HORIZON)
    assert forecast.values.shape == (ROWS, HORIZON, 2)
    torch.testing.assert_close(forecast.values, known[:, STEPS:])
    lead = task.decoder.lead
    assert forecast.one_step[:, :lead].isnan().all()
    for step in range(lead, STEPS):
        before = task.forecast(values[:, :step], horizon=1).values[:, 0]
        torch.testing.assert_close(forecast.one_step[:, step], before)
    assert (forecast.deviation is not None) == (options.get("head") == "gaussian")


@pytest.mark.parametrize("head", ["value", "gaussian"])
def test_other_series_of_the_batch_change_nothing(head):
    task, values = forecaster(head=head).double(), series()
    is_known = torch.rand(values.shape, generator=torch.Generator().manual_seed(3)) < 0.8
    together = task.forecast(values, is_known, HORIZON)
    for row in range(ROWS):
        alone = task.forecast(values[row : row + 1], is_known[row : row + 1], HORIZON)
        for part, whole in zip(alone, together, strict=True):
            if part is not None:
                torch.testing.assert_close(part[0], whole[row], equal_nan=True)


def test_a_band_holds_as_many_futures_as_it_says():
    task = forecaster(channels=1, head="gaussian", residual=True).double()
    for parameter in task.parameters():
        torch.nn.init.zeros_(parameter)  # a random walk
    forecast = task.forecast(series(1, channels=1), horizon=9, paths=2000)
    step = 3 * math.log(2)  # the standard deviation of the data, and softplus of 0
    expected = torch.arange(1, 10).double().sqrt() * step
    torch.testing.assert_close(forecast.deviation[0, :, 0], expected, rtol=0.1, atol=0)


@pytest.mark.parametrize("horizon", [0, -1])
def test_no_horizon_is_refused(horizon):
    with pytest.raises(ConfigError, match=rf"horizon={horizon} must be at least 1"):
        forecaster().forecast(series(), horizon=horizon)


def test_a_series_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="3 channels, the model 2"):
        forecaster().forecast(series(channels=3))
    expected = r"has 12 steps, and the model needs 13 to begin\. Give 13 or more: a longer file, or"
    with pytest.raises(ConfigError, match=expected):
        forecaster(difference=12).forecast(series())


def test_windows_without_a_step_to_predict_are_refused(monkeypatch):
    task = by_hand(forecaster(difference=11), monkeypatch)
    with pytest.raises(ConfigError, match=r"Windows of 12 steps .* first 12 .*tbptt_steps"):
        task.training_step(batch_of(series()), 0)


def test_all_problems_of_the_options_come_together():
    with pytest.raises(ConfigError) as error:
        forecaster(cell="sru", head="poisson", hidden_size=0, difference=-1, dropout=1.0)
    for problem in (
        "cell is 'sru'",
        "head is 'poisson'",
        "hidden_size=0",
        "difference=-1",
        "dropout=1.0",
    ):
        assert problem in str(error.value)


# Metrics.


def test_metrics_are_in_units_of_the_data_over_known_values(make_trainer, tmp_path):
    torch.manual_seed(4)
    steps = torch.arange(80).double()
    table = torch.stack([torch.sin(steps / 3), 100 + steps / 7], dim=1)
    rows = [",".join(f"{value:.6f}" for value in row) for row in table.tolist()]
    rows[70] = "," + rows[70].split(",")[1]
    path = tmp_path / "series.csv"
    path.write_text("\n".join(["wave,level", *rows]))
    data = SeriesDataModule(
        str(path),
        horizon=4,
        num_channels=2,
        missing="keep",
        window=10,
        season=5,
        eval_batch_size=3,
        val_share=0.2,
        test_share=0.2,
    )
    task = forecaster()
    [scores] = make_trainer(logger=False).test(task, data, verbose=False)
    errors = {name: [] for name in ("free", "one", "naive", "worst")}
    for batch in data.test_dataloader():
        start = batch.warm_up
        truth, is_known = batch.values[:, start:], batch.is_known[:, start:]
        read = batch.values[:, :start], batch.is_known[:, :start]
        free = task.forecast(*read, truth.shape[1]).values - truth
        one = task.forecast(batch.values, batch.is_known).one_step[:, start:] - truth
        naive = seasonal_naive(batch.values, batch.is_known, start, 5) - truth
        for name, error in (("free", free), ("one", one), ("naive", naive)):
            errors[name].append(error[is_known])
        squares = (free * is_known).square().sum(dim=(1, 2)) / is_known.sum(dim=(1, 2))
        errors["worst"].append(squares)
    free, one, naive, worst = (torch.cat(errors[name]) for name in errors)
    assert not is_known.all() or len(free) < 2 * 16
    expected = {
        "one_step_mse": one.square().mean(),
        "free_running_mse": free.square().mean(),
        "mae": free.abs().mean(),
        "worst_free_running_mse": worst.max(),
        "seasonal_naive_mse": naive.square().mean(),
        "seasonal_naive_mae": naive.abs().mean(),
    }
    assert scores == {
        f"test/{name}": pytest.approx(float(value), rel=1e-4) for name, value in expected.items()
    }


def test_without_a_season_no_naive_forecast_is_scored(make_trainer):
    [scores] = make_trainer(logger=False).validate(forecaster(1), waves(), verbose=False)
    assert not any("naive" in name for name in scores)
    assert {"val/free_running_mse", "val/one_step_mse", "val/mae"} <= scores.keys()
