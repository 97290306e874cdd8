from pathlib import Path

import pytest
import torch
import yaml
from command_line import seq2seq
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RECIPE = Path(__file__).parents[1] / "configs" / "forecasting" / "sine.yaml"
TINY = [
    *("--config", str(RECIPE), "--model.hidden_size", "4", "--trainer.max_epochs", "4"),
    *("--data.train_waves", "3", "--data.length", "20", "--data.horizon", "15"),
    *("--model.optimization.max_iterations", "2", "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder in which the recipe, made tiny, has been trained."""
    folder = tmp_path_factory.mktemp("run")
    done = seq2seq(folder, "fit", *TINY)
    assert done.status == 0, done.errors
    return folder


def test_the_best_checkpoint_is_the_one_with_the_smallest_error(run):
    config = yaml.safe_load((run / "runs/sine/config.yaml").read_text())
    assert config["checkpoint"]["mode"] == "min"
    assert config["checkpoint"]["monitor"] == "val/worst_free_running_mse"
    events = EventAccumulator(str(run / "runs/sine")).Reload()
    scores = {event.step: event.value for event in events.Scalars("val/worst_free_running_mse")}
    assert len(scores) == 4
    best = torch.load(run / "runs/sine/best.ckpt", weights_only=True)
    assert best["global_step"] == 1 + [*scores.values()].index(min(scores.values()))


def test_each_test_wave_is_drawn_into_the_folder_and_tensorboard(run):
    files = {path.name for path in (run / "runs/sine").iterdir()}
    assert {f"forecast_test_{number}.png" for number in (1, 2, 3)} <= files
    events = EventAccumulator(str(run / "runs/sine")).Reload()
    assert {f"test/forecast/{number}" for number in (1, 2, 3)} <= set(events.Tags()["images"])


def test_a_checkpoint_is_tested_and_a_run_goes_on(run):
    done = seq2seq(run, "test", *TINY, "--ckpt_path", "runs/sine/best.ckpt")
    assert done.status == 0, done.errors
    assert "test/worst_free_running_mse" in done.output
    done = seq2seq(run, "fit", *TINY, "--trainer.max_epochs", "5", "--ckpt_path", "last")
    assert done.status == 0, done.errors
    assert "epoch 4, step 5" in done.output
    assert "epoch 3, step 4" not in done.output


def test_channels_are_linked(run):
    done = seq2seq(run, "fit", *TINY, "--data.num_channels", "2")
    assert done.status == 2
    assert "--data.num_channels is 2: a wave has 1" in done.errors


def test_predict_names_the_command_that_forecasts(run):
    checkpoint = ["--ckpt_path", "runs/sine/best.ckpt"]
    for options, named in (([], "--ckpt_path X"), (checkpoint, " ".join(checkpoint))):
        done = seq2seq(run, "predict", *TINY, *options)
        assert done.status == 2
        expected = f"Use seq2seq-predict {named} --input series.csv --horizon N."
        assert done.errors.strip().endswith(expected)
