import math

import numpy as np
import pytest
import torch

from datamodules.series import SeriesDataModule
from seq2seq.errors import ConfigError, DataError
from seq2seq.metrics.naive import seasonal_naive

STEPS = 60  # 42 of training, then 9 of validation and 9 of the test
TRAIN_END, VAL_END = 42, 51


def write(folder, values, name="a.npy"):
    np.save(folder / name, values)
    return folder / name


def numbered(channels=1, steps=STEPS):
    """Return values that tell their step and channel: 100 per channel, 1 per step."""
    return np.arange(steps, dtype=float)[:, None] + 100 * np.arange(channels)


def module(source, **options):
    defaults = {"horizon": 3, "window": 8, "warm_up": 5, "val_share": 0.15, "test_share": 0.15}
    return SeriesDataModule(str(source), **defaults | {"batch_size": 4} | options)


def ready(source, **options):
    data = module(source, **options)
    data.prepare_data()
    data.setup("fit")
    return data


def rows(loader):
    """Return values and what is known of each window, by its position."""
    found = {}
    for batch in loader:
        assert batch.values.dtype == torch.float64
        assert batch.is_known.dtype == torch.bool
        assert batch.is_known.shape == batch.values.shape
        assert batch.indices.dtype == torch.int64
        for index, values, is_known in zip(
            batch.indices.tolist(), batch.values, batch.is_known, strict=True
        ):
            assert index not in found
            found[index] = values, is_known
    return [found[index] for index in range(len(found))]


def steps_of(windows):
    """Return the steps of numbered windows that are known."""
    return [values[is_known].tolist() for values, is_known in windows]


# Windows.


@pytest.mark.parametrize(("window", "stride"), [(8, 1), (8, 5), (41, 3), (42, 4), (7, 90)])
def test_training_windows_are_so_long_and_so_far_apart_and_end_with_training(
    tmp_path, window, stride
):
    data = ready(write(tmp_path, numbered()), window=window, stride=stride)
    starts = [steps[0] for steps in steps_of(rows(data.train_dataloader()))]
    assert starts == list(range(TRAIN_END - window, -1, -stride))[::-1]
    for batch in data.train_dataloader():
        assert batch.warm_up == batch.values.shape[1] == window
        assert not batch.is_continued
        assert len(batch.indices) <= 4


def test_the_whole_training_part_is_a_window_if_none_is_set(tmp_path):
    data = ready(write(tmp_path, numbered()), window=None, warm_up=None)
    assert steps_of(rows(data.train_dataloader())) == [list(range(TRAIN_END))]
    assert next(iter(data.val_dataloader())).warm_up == TRAIN_END


def test_evaluation_forecasts_every_step_of_its_part_once_from_the_steps_before(tmp_path):
    data = ready(write(tmp_path, numbered()), horizon=4, eval_batch_size=2)
    for role, start, end in (("val", TRAIN_END, VAL_END), ("test", VAL_END, STEPS)):
        loader = getattr(data, f"{role}_dataloader")()
        assert [len(batch.indices) for batch in loader] == [2, 1]
        assert all(batch.warm_up == 5 and batch.values.shape[1] == 9 for batch in loader)
        windows = rows(loader)
        scored = [
            steps for part in steps_of([(v[5:], k[5:]) for v, k in windows]) for steps in part
        ]
        assert scored == list(range(start, end))
        for values, is_known in windows:
            assert is_known[:5].all()
            assert values[:5, 0].tolist() == [values[5, 0] - 5 + step for step in range(5)]
        # Beyond the part is nothing, though the series goes on.
        assert not windows[-1][0][6:].any()
        assert not windows[-1][1][6:].any()


def test_every_column_and_every_part_of_an_array_may_be_a_series(tmp_path):
    values = numbered(3)
    parts = ready(write(tmp_path, values.T[:, :, None]))
    columns = ready(write(tmp_path, values), layout="series")
    for data in (parts, columns):
        for role in ("val", "test"):
            windows = steps_of(rows(getattr(data, f"{role}_dataloader")()))
            firsts = [steps[0] // 100 for steps in windows]
            assert firsts == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert len(rows(data.train_dataloader())) == 3 * 35
        assert data.scaling.mean.tolist() == [100 + (TRAIN_END - 1) / 2]
        assert data.scaling.std.shape == (1,)
    assert columns.scaling.names == ()


def test_channels_stay_beside_each_other(tmp_path):
    data = ready(write(tmp_path, numbered(3)), num_channels=2, columns=["3", "1"])
    for values, _ in rows(data.train_dataloader()):
        assert (values[:, 0] == values[:, 1] + 200).all()
    assert data.scaling.names == ("3", "1")
    assert data.scaling.mean.tolist() == [220.5, 20.5]


# No look ahead.


def test_later_values_change_neither_scaling_nor_training(tmp_path):
    values = numbered(2) ** 1.5
    values[[5, 41], 0] = math.nan  # the last one before the border, too
    later = values.copy()
    later[TRAIN_END:] = -9e9
    for missing in ("interpolate", "keep"):
        options = {"num_channels": 2, "missing": missing, "window": None, "tbptt_steps": 9}
        first, second = (
            ready(write(tmp_path, array, name), **options)
            for array, name in ((values, "a.npy"), (later, "b.npy"))
        )
        assert torch.equal(torch.stack(first.scaling[:2]), torch.stack(second.scaling[:2]))
        for one, other in zip(first.train_dataloader(), second.train_dataloader(), strict=True):
            assert torch.equal(one.values, other.values)
            assert torch.equal(one.is_known, other.is_known)


def test_what_a_forecast_reads_does_not_change_with_what_comes_later(tmp_path):
    values = numbered() ** 1.5
    values[[40, 41, 44, 47, 50], 0] = math.nan
    for role in ("val", "test"):
        for number in range(3):
            origin = {"val": TRAIN_END, "test": VAL_END}[role] + 3 * number
            later = values.copy()
            later[origin:] = -9e9
            found = [
                rows(getattr(ready(path, missing="interpolate"), f"{role}_dataloader")())[number]
                for path in (write(tmp_path, values), write(tmp_path, later, "b.npy"))
            ]
            assert torch.equal(found[0][0][:5], found[1][0][:5])
            assert found[0][1][:5].all()
            # What is scored has not been made up.
            is_missing = np.isnan(values[origin : origin + 3, 0])
            assert found[0][1][5:, 0].tolist() == (~is_missing).tolist()


# Missing values and scaling.


def test_the_scaling_is_that_of_known_training_values(tmp_path):
    values = numbered()
    values[10:20] = math.inf
    for missing in ("interpolate", "keep"):
        data = ready(write(tmp_path, values), missing=missing)
        known = torch.tensor([*range(10), *range(20, TRAIN_END)], dtype=torch.float64)
        torch.testing.assert_close(data.scaling.mean, known.mean()[None])
        torch.testing.assert_close(data.scaling.std, known.std(correction=0)[None])
    plain = ready(write(tmp_path, values), missing="keep", standardize=False)
    assert (plain.scaling.mean.tolist(), plain.scaling.std.tolist()) == ([0], [1])


def test_missing_training_values_are_filled_in_or_left_out(tmp_path):
    values = numbered()
    values[10:20] = math.nan
    path = write(tmp_path, values)
    options = {"window": None, "warm_up": 5}
    [(filled, is_filled)] = rows(ready(path, missing="interpolate", **options).train_dataloader())
    torch.testing.assert_close(filled[:, 0], torch.arange(42, dtype=torch.float64))
    assert is_filled.all()
    [(kept, is_known)] = rows(ready(path, missing="keep", **options).train_dataloader())
    assert is_known[:, 0].logical_not().nonzero().flatten().tolist() == list(range(10, 20))
    assert not kept[10:20].any()
    with pytest.raises(DataError, match=r"\(10\): column '1', row 11; .*; and 5 more\. Mend"):
        module(path).prepare_data()


def test_a_channel_without_a_training_value_is_an_error(tmp_path):
    values = numbered(2)
    values[:TRAIN_END, 1] = math.nan
    data = module(write(tmp_path, values), num_channels=2, missing="keep")
    with pytest.raises(DataError, match=r"no value of 2 in the training part, the first 42 steps"):
        data.setup("fit")


# Truncated back-propagation.


def test_training_goes_through_the_chunks_of_the_same_windows(tmp_path):
    data = ready(write(tmp_path, numbered()), window=20, stride=10, tbptt_steps=8, batch_size=2)
    loader = data.train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) == 6
    for start in (0, 3):
        group = batches[start : start + 3]
        assert [batch.is_continued for batch in group] == [False, True, True]
        assert [batch.values.shape[1] for batch in group] == [8, 8, 4]
        assert [batch.warm_up for batch in group] == [8, 8, 4]
        whole = torch.cat([batch.values for batch in group], dim=1)
        assert (whole.diff(dim=1) == 1).all()
        for batch in group:
            assert torch.equal(batch.indices, group[0].indices)
    evaluated = next(iter(data.val_dataloader()))
    assert evaluated.values.shape == (3, 8, 1)
    assert not evaluated.is_continued


def test_training_goes_on_in_the_midst_of_a_window(tmp_path):
    data = ready(write(tmp_path, numbered()), window=20, stride=10, tbptt_steps=8, batch_size=2)
    loader = data.train_dataloader()
    loader.set_epoch(1)
    expected = list(loader)
    iterator = iter(loader)
    for _ in range(2):
        next(iterator)
    resumed = data.train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    resumed.set_epoch(1)
    rest = list(resumed)
    assert len(rest) == 4
    assert rest[0].is_continued
    for one, other in zip(rest, expected[2:], strict=True):
        assert torch.equal(one.values, other.values)


def test_workers_change_nothing(tmp_path):
    path = write(tmp_path, numbered())
    own, others = (ready(path, num_workers=number).train_dataloader() for number in (0, 1))
    for one, other in zip(own, others, strict=True):
        assert torch.equal(one.values, other.values)
        assert one.warm_up == other.warm_up


def test_all_windows_are_a_batch_if_none_is_set(tmp_path):
    [batch] = ready(write(tmp_path, numbered()), batch_size=None).train_dataloader()
    assert len(batch.indices) == 35


# What cannot work.


def test_a_series_shorter_than_a_window_is_an_error(tmp_path):
    path = write(tmp_path, numbered())
    expected = r"of 60 steps, 42 are the training part, and 43 .* window of 43, and 5 before each"
    with pytest.raises(DataError, match=expected):
        module(path, window=43).setup("fit")
    with pytest.raises(DataError, match=r"43 are needed: a window of 8, .*Lower --data\.window"):
        module(path, warm_up=43).setup("fit")
    with pytest.raises(DataError, match=r"9 are the val part, .* of 10\. Raise --data\.val_share"):
        module(path, horizon=10, test_share=0.2).setup("fit")
    with pytest.raises(DataError) as caught:
        module(path, horizon=10, window=50).setup("fit")
    assert str(caught.value).count("\n  - ") == 3


def test_another_number_of_channels_is_refused_with_what_to_set(tmp_path):
    path = write(tmp_path, numbered(2))
    for step in (lambda data: data.prepare_data(), lambda data: data.setup("fit")):
        with pytest.raises(DataError, match=r"2 channels \(1, 2\), not 1\. Set --data\.num_chann"):
            step(module(path))
    array = write(tmp_path, np.ones((3, STEPS, 2)))
    with pytest.raises(DataError, match=r"first axis is 3 series already\. Set --data\.layout=ch"):
        module(array, layout="series").prepare_data()


def test_an_empty_part_cannot_be_evaluated(tmp_path):
    data = ready(write(tmp_path, numbered()), val_share=0.0)
    assert len(rows(data.test_dataloader())) == 3
    with pytest.raises(DataError, match=r"val split has nothing in it\. Set --data\.val_share"):
        data.val_dataloader()


def test_a_season_fits_into_what_is_known(tmp_path):
    path = write(tmp_path, numbered())
    assert ready(path, season=5).season == 5
    with pytest.raises(ConfigError, match=r"--data\.season=6 is more than the 5 steps before each"):
        module(path, season=6).setup("fit")


def test_options_that_cannot_work_are_named_together():
    options = {
        "num_channels": 0,
        "horizon": 0,
        "stride": 0,
        "window": 1,
        "warm_up": 0,
        "season": 0,
        "tbptt_steps": 1,
        "batch_size": 0,
        "eval_batch_size": 0,
        "layout": "rows",
        "missing": "guess",
        "val_share": 1.0,
    }
    with pytest.raises(ConfigError) as caught:
        module("a.csv", **options)
    assert all(f"--data.{option}" in str(caught.value) for option in options)
    with pytest.raises(ConfigError, match=r"num_channels is 2: with --data\.layout=series, each"):
        module("a.csv", num_channels=2, layout="series")


def test_the_file_can_be_checked(tmp_path):
    path = write(tmp_path, numbered())
    [reading] = module(path).iter_readings()
    assert reading.name == str(path)
    reading.read()
    path.write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read as an array"):
        reading.read()


# The naive forecast.


@pytest.mark.parametrize("season", [1, 3, 5])
@pytest.mark.parametrize("horizon", [1, 4, 11])
def test_the_naive_forecast_repeats_the_last_season(season, horizon):
    values = torch.randn(2, 7 + horizon, 3, dtype=torch.float64)
    values[:, 7:] = math.nan  # not looked at
    forecast = seasonal_naive(values, torch.ones_like(values, dtype=torch.bool), 7, season)
    assert forecast.shape == (2, horizon, 3)
    for step in range(horizon):
        assert torch.equal(forecast[:, step], values[:, 7 - season + step % season])


def test_the_naive_forecast_goes_back_to_what_is_known():
    values = torch.arange(8.0).view(1, 8, 1).repeat(2, 1, 1)
    is_known = torch.ones_like(values, dtype=torch.bool)
    is_known[0, [1, 4, 5]] = False
    is_known[1] = False
    forecast = seasonal_naive(values, is_known, 6, 3)
    # One season back for step 3, two for 5; of 1 and 4 nothing is known: the last value is taken.
    assert forecast.flatten(1).tolist() == [[3, 3], [0, 0]]
    longer = torch.cat([values, values], dim=1)
    known = torch.cat([is_known, is_known], dim=1)
    assert seasonal_naive(longer, known, 6, 3)[0, :3, 0].tolist() == [3, 3, 2]
