import pytest
import torch

from seq2seq.batches import SeriesBatch
from seq2seq.metrics.forecasts import ForecastMetrics

ROWS, STEPS, WARM_UP, CHANNELS = 5, 7, 4, 2


def example():
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(ROWS, STEPS, CHANNELS, generator=generator, dtype=torch.float64)
    is_known = torch.rand(values.shape, generator=generator) < 0.7
    forecasts = [torch.randn(ROWS, STEPS - WARM_UP, CHANNELS, generator=generator) for _ in "abc"]
    return values, is_known, forecasts


def computed(cuts, *, with_naive=True):
    values, is_known, forecasts = example()
    metrics = ForecastMetrics()
    for rows in cuts:
        index = torch.tensor(rows)
        batch = SeriesBatch(values[index], is_known[index], index, WARM_UP)
        one_step, free, naive = (part[index] for part in forecasts)
        metrics.update(batch, one_step, free, naive if with_naive else None)
    return metrics, metrics.compute()


def test_errors_are_those_of_known_values_after_the_warm_up():
    values, is_known, forecasts = example()
    truth, known = values[:, WARM_UP:], is_known[:, WARM_UP:]
    one_step, free, naive = ((part - truth)[known] for part in forecasts)
    by_row = [(forecasts[1] - truth)[row][known[row]].square().mean() for row in range(ROWS)]
    _, found = computed([[0, 1, 2, 3, 4]])
    expected = {
        "one_step_mse": one_step.square().mean(),
        "free_running_mse": free.square().mean(),
        "mae": free.abs().mean(),
        "seasonal_naive_mse": naive.square().mean(),
        "seasonal_naive_mae": naive.abs().mean(),
        "worst_free_running_mse": max(by_row),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-6), name


@pytest.mark.parametrize("cuts", [[[0], [1, 2, 3], [4]], [[0, 1], [2, 3, 4], [0, 1]]])
def test_batches_of_any_size_also_twice_give_the_same(cuts):
    _, whole = computed([[0, 1, 2, 3, 4]])
    _, found = computed(cuts)
    for name, value in whole.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-6), name


def test_without_a_naive_forecast_there_is_no_metric_of_it_and_what_was_computed_is_forgotten():
    metrics, found = computed([[0, 1]], with_naive=False)
    assert not any("naive" in name for name in found)
    assert metrics.compute() == {}


def test_what_was_added_can_be_forgotten():
    values, is_known, (one_step, free, naive) = example()
    batch = SeriesBatch(values, is_known, torch.arange(ROWS), WARM_UP)
    metrics = ForecastMetrics()
    metrics.update(batch, one_step + 9, free + 9, naive + 9)
    metrics.reset()
    assert metrics.compute() == {}
    metrics.update(batch, one_step, free, naive)
    assert metrics.compute() == computed([[0, 1, 2, 3, 4]])[1]


def test_a_window_without_a_known_value_has_no_error():
    values, is_known, (one_step, free, _) = example()
    known = is_known.clone()
    known[2:, WARM_UP:] = False
    metrics = ForecastMetrics()
    for rows in ([2, 3], [4, 1], [0]):
        metrics.update(
            SeriesBatch(values[rows], known[rows], torch.tensor(rows), WARM_UP),
            one_step[rows],
            free[rows],
        )
    found = metrics.compute()
    torch.testing.assert_close(found, computed([[0, 1]], with_naive=False)[1])
    metrics.update(SeriesBatch(values, known & False, torch.arange(ROWS), WARM_UP), one_step, free)
    nothing = metrics.compute()
    assert nothing.keys() == found.keys()
    assert all(value.isnan() for value in nothing.values())


def test_one_forecast_that_is_not_a_number_is_not_left_out():
    values, is_known, (one_step, free, naive) = example()
    free[3] = torch.nan
    metrics = ForecastMetrics()
    metrics.update(SeriesBatch(values, is_known, torch.arange(5), WARM_UP), one_step, free, naive)
    is_nan = {name for name, value in metrics.compute().items() if value.isnan()}
    assert is_nan == {"free_running_mse", "mae", "worst_free_running_mse"}
