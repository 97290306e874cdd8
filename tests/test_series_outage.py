"""A part of a series in which no value is known, as of a sensor that failed."""

import math

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from toy_series import forecaster, module

from seq2seq.errors import DataError

# Of 40 days 24 are of training, 6 of validation and 10 of the test.
SHARES = {"val_share": 0.15, "test_share": 0.25, "num_channels": 1, "horizon": 3, "window": 7}


def outage(folder, first, last, **options):
    """Return a series without the values of some days."""
    rows = [
        f"{day}," if first <= day <= last else f"{day},{math.sin(day / 3):.5f}"
        for day in range(1, 41)
    ]
    path = folder / "days.csv"
    path.write_text("\n".join(["day,warm", *rows, ""]), encoding="utf-8")
    return module(path, **{"missing": "keep", **SHARES, **options})


@pytest.mark.parametrize("missing", ["keep", "interpolate"])
def test_validation_without_a_known_value_is_an_error_before_training(
    make_trainer, tmp_path, missing
):
    data = outage(tmp_path, 25, 30, missing=missing)
    expected = r"days\.csv: no value of the val part is known, which ends at step 30, .*val_share"
    with pytest.raises(DataError, match=expected):
        make_trainer(max_steps=1).fit(forecaster(1), data)
    [scores] = make_trainer().test(forecaster(1), data, verbose=False)
    assert all(map(math.isfinite, scores.values()))


def test_a_test_part_that_is_not_known_yet_is_no_hindrance_to_training(make_trainer, tmp_path):
    data = outage(tmp_path, 31, 40)
    make_trainer(max_steps=1).fit(forecaster(1), data)
    with pytest.raises(DataError, match=r"the test part is known, which ends at step 40"):
        make_trainer().test(forecaster(1), data)


def test_one_known_value_is_enough(make_trainer, tmp_path):
    data = outage(tmp_path, 25, 29)
    [scores] = make_trainer().validate(forecaster(1), data, verbose=False)
    assert all(map(math.isfinite, scores.values()))
    assert scores["val/worst_free_running_mse"] == scores["val/free_running_mse"] > 0


def test_a_first_look_at_an_outage_scores_nothing_and_does_no_harm(make_trainer, tmp_path):
    data = outage(tmp_path, 25, 27, eval_batch_size=1)
    best = ModelCheckpoint(tmp_path / "run", "best", monitor="val/worst_free_running_mse")
    options = {"callbacks": [best], "enable_checkpointing": True, "max_epochs": 2}
    make_trainer(num_sanity_val_steps=1, **options).fit(forecaster(1), data)
    assert best.best_model_score > 0


def test_where_only_an_outage_is_looked_at_there_is_no_score(make_trainer, tmp_path):
    data = outage(tmp_path, 25, 27, eval_batch_size=1)
    best = ModelCheckpoint(tmp_path / "run", "best", monitor="val/worst_free_running_mse")
    options = {"callbacks": [best], "enable_checkpointing": True, "max_epochs": 2}
    fitting = make_trainer(limit_val_batches=1, **options)
    fitting.fit(forecaster(1), data)
    scores = {name: v for name, v in fitting.callback_metrics.items() if name.startswith("val/")}
    assert len(scores) == 4
    assert all(value.isnan() for value in scores.values())
    assert (tmp_path / "run" / "best.ckpt").exists()
