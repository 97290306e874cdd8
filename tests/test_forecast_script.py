import csv
import sys

import numpy as np
import pytest
import torch
from conftest import trainer
from PIL import Image
from toy_series import CHANNELS, DAYS, module, save_forecaster, write_table

import seq2seq
from datamodules.waves import SineDataModule
from seq2seq.predict import main
from seq2seq.series import read_series

HORIZON = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a table, and checkpoints that were trained on it and on waves."""
    folder = tmp_path_factory.mktemp("forecasts")
    source = write_table(folder)

    def make_trainer(**options):
        return trainer(folder, **options)

    save_forecaster(make_trainer, module(source), folder / "value.ckpt")
    save_forecaster(make_trainer, module(source), folder / "band.ckpt", head="gaussian")
    save_forecaster(
        make_trainer, module(source, layout="series", num_channels=1), folder / "alone.ckpt", 1
    )
    waves = SineDataModule(train_waves=3, val_waves=0, test_waves=0, length=9)
    save_forecaster(make_trainer, waves, folder / "waves.ckpt", 1)
    return folder


@pytest.fixture
def predict(folder, tmp_path, monkeypatch):
    """Return what runs the script in this process and gives the rows that it writes."""

    def run(*options, ckpt="value.ckpt", source="days.csv", output="out.csv"):
        path = tmp_path / output
        given = source if source == "-" else folder / source
        files = ["--ckpt_path", folder / ckpt, "--input", given, "--output", path]
        monkeypatch.setattr(sys, "argv", ["seq2seq-predict", *map(str, [*files, *options])])
        main()
        return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))

    return run


@pytest.fixture
def message(predict):
    """Return what runs the script and gives its error message."""

    def run(*options, **files):
        with pytest.raises(SystemExit) as stop:
            predict(*options, **files)
        return str(stop.value)

    return run


def numbers(rows, columns):
    return torch.tensor([[float(row[column]) for column in columns] for row in rows[1:]])


def test_a_forecast_has_a_row_for_each_step_and_time_goes_on(folder, predict):
    rows = predict("--horizon", HORIZON)
    assert rows[0] == ["time", *CHANNELS]
    assert [row[0] for row in rows[1:]] == ["2024-03-10", "2024-03-11", "2024-03-12", "2024-03-13"]
    series = read_series(folder / "days.csv", time_column="day")
    forecast = seq2seq.load_forecaster(folder / "value.ckpt", "cpu").forecast(
        series.values[None], horizon=HORIZON
    )
    torch.testing.assert_close(numbers(rows, (1, 2)), forecast.values[0].float())


def test_a_gaussian_head_gives_a_band(folder, predict):
    rows = predict("--horizon", HORIZON, "--seed", 3, ckpt="band.ckpt")
    assert rows[0] == [
        "time",
        *(f"{name}{end}" for name in CHANNELS for end in ("", "_low", "_high")),
    ]
    series = read_series(folder / "days.csv", time_column="day")
    forecast = seq2seq.load_forecaster(folder / "band.ckpt", "cpu").forecast(
        series.values[None], horizon=HORIZON, seed=3
    )
    middle, low, high = (numbers(rows, (1 + end, 4 + end)) for end in range(3))
    torch.testing.assert_close(middle, forecast.values[0].float())
    reach = 1.645 * forecast.deviation[0].float()
    torch.testing.assert_close((high - low) / 2, reach, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((high + low) / 2, middle)


def test_columns_are_found_by_name_in_any_order(folder, predict):
    lines = [line.split(",") for line in (folder / "days.csv").read_text().splitlines()]
    mixed = "\n".join(";".join([cold, "7", day, warm]) for day, warm, cold in lines)
    mixed = mixed.replace("cold;7", "cold;more", 1)
    (folder / "mixed.csv").write_text("\ufeff" + mixed, encoding="utf-8")
    assert predict("--horizon", HORIZON, source="mixed.csv") == predict("--horizon", HORIZON)


def test_other_names_can_be_given(folder, predict):
    write_table(folder, "other.csv", header="when,a,b")
    options = ("--horizon", HORIZON, "--columns", "[a, b]", "--time_column", "when")
    rows = predict(*options, source="other.csv")
    assert rows[0] == ["time", "a", "b"]
    assert rows[1:] == predict("--horizon", HORIZON)[1:]


def test_where_each_column_was_a_series_so_is_each_of_the_file(predict):
    both = predict("--horizon", HORIZON, ckpt="alone.ckpt")
    one = predict("--horizon", HORIZON, "--columns", "[cold]", ckpt="alone.ckpt")
    assert both[0] == ["time", *CHANNELS]
    assert [row[2] for row in both] == [row[1] for row in one]


def test_steps_are_numbered_where_there_is_no_time(folder, predict):
    np.save(folder / "wave.npy", np.sin(np.arange(30) / 4))
    rows = predict("--horizon", 2, ckpt="waves.ckpt", source="wave.npy")
    assert rows[0] == ["step", "1"]
    assert [row[0] for row in rows[1:]] == ["31", "32"]


def test_the_picture_is_written_beside_the_table(predict, tmp_path):
    for ckpt in ("band.ckpt", "alone.ckpt"):
        predict("--horizon", HORIZON, "--plot", tmp_path / "plot.png", ckpt=ckpt)
        with Image.open(tmp_path / "plot.png") as picture:
            assert min(picture.size) > 300
        (tmp_path / "plot.png").unlink()


def with_gap(folder):
    lines = (folder / "days.csv").read_text().splitlines()
    day, _, cold = lines[40].split(",")
    lines[40] = f"{day},NaN,{cold}"
    (folder / "gap.csv").write_text("\n".join(lines), encoding="utf-8")
    return "gap.csv"


def test_missing_values_are_an_error_unless_a_policy_says_otherwise(folder, predict, message):
    source = with_gap(folder)
    error = message("--horizon", HORIZON, source=source)
    assert "column 'warm', row 41" in error
    filled = {
        missing: predict("--horizon", HORIZON, "--missing", missing, source=source)
        for missing in ("interpolate", "keep")
    }
    assert filled["interpolate"] != filled["keep"]
    assert len(filled["keep"]) == 1 + HORIZON


# What cannot be.


@pytest.mark.parametrize("horizon", ["0", "-3"])
def test_no_horizon_is_refused(message, horizon):
    assert f"--horizon {horizon} must be at least 1" in message("--horizon", horizon)


def test_a_forecaster_without_a_horizon_says_so(message):
    assert "set --horizon, the number of steps" in message()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--beam_size", "3"], "--beam_size"),
        (["--format", "csv", "--batch_size", "3"], "--batch_size, --format"),
        (["--precision", "bf16"], "--precision"),
    ],
)
def test_options_of_decoding_are_refused(message, options, named):
    error = message("--horizon", HORIZON, *options)
    assert f"{named}: not for series, and this is a checkpoint of the task Forecaster" in error


@pytest.mark.parametrize("option", ["--horizon", "--plot", "--time_column"])
def test_options_of_forecasts_are_refused_by_other_tasks(checkpoint, tmp_path, monkeypatch, option):
    (tmp_path / "in.txt").write_text("7.11.1987\n")
    arguments = ["--ckpt_path", str(checkpoint), "--input", str(tmp_path / "in.txt"), option, "3"]
    monkeypatch.setattr(sys, "argv", ["seq2seq-predict", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert f"{option}: for series, and this is a checkpoint of the task Translator" in str(
        stop.value
    )


def test_columns_that_the_checkpoint_does_not_know_are_refused(folder, message):
    write_table(folder, "foreign.csv", header="day,warm,mild")
    error = message("--horizon", HORIZON, source="foreign.csv")
    assert "has no column 'cold'. Its columns are 'day', 'warm', 'mild'" in error
    assert "The checkpoint was trained on 'warm', 'cold'; --columns names" in error


def test_another_number_of_columns_is_refused(message):
    error = message("--horizon", HORIZON, "--columns", "[warm]")
    assert "1 columns are read (warm), and the checkpoint was trained on 2" in error


def test_a_series_too_short_to_begin_is_refused(folder, message):
    saved = torch.load(folder / "value.ckpt", weights_only=True)
    saved["hyper_parameters"]["difference"] = DAYS
    torch.save(saved, folder / "long.ckpt")
    error = message("--horizon", HORIZON, ckpt="long.ckpt")
    assert f"days.csv: The series has {DAYS} steps, and the model needs {DAYS + 1}" in error


def test_files_are_not_overwritten(folder, message, tmp_path):
    for path in (folder / "days.csv", tmp_path / "out.csv"):
        assert f"--plot {path}: is --input or --output" in message(
            "--horizon", HORIZON, "--plot", path
        )
    assert "would overwrite --input" in message("--horizon", HORIZON, output=folder / "days.csv")


def test_a_stream_and_an_unknown_kind_of_picture_are_refused(message, tmp_path):
    plot = tmp_path / "plot.docx"
    error = message("--horizon", HORIZON, "--plot", plot)
    assert f"--plot {plot}: " in error
    assert "Let it end in .png" in error
    assert "a series is read from a file" in message("--horizon", HORIZON, source="-")
