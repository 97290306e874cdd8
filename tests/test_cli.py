import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from command_line import TINY, seq2seq
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


class Uninstalled(CSVLogger):
    def __init__(self) -> None:
        raise ModuleNotFoundError("Requirement 'wandb' not met")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder in which the quickstart, made tiny, has been trained."""
    folder = tmp_path_factory.mktemp("run")
    done = seq2seq(folder, "fit", *TINY)
    assert done.status == 0, done.errors
    return folder, done.output


def test_fit_leaves_a_folder_with_everything(run):
    folder, output = run
    files = {path.name for path in (folder / "runs/quickstart").iterdir()}
    assert {"best.ckpt", "last.ckpt", "config.yaml"} <= files
    assert any(name.startswith("events.out.tfevents") for name in files)
    assert "saved in runs/quickstart/best.ckpt" in output
    assert "(reference: " in output


def test_tensorboard_has_losses_scores_rates_samples_and_a_picture(run):
    events = EventAccumulator(str(run[0] / "runs/quickstart")).Reload()
    scalars = {"train/loss", "val/loss", "val/bleu", "val/chrf", "val/exact_match"}
    assert scalars <= set(events.Tags()["scalars"])
    assert any(name.startswith("lr-") for name in events.Tags()["scalars"])
    assert "val/attention/0" in events.Tags()["images"]
    assert any(name.startswith("val/samples") for name in events.Tags()["tensors"])


def test_the_checkpoint_loads_without_running_code(run):
    checkpoint = torch.load(run[0] / "runs/quickstart/best.ckpt", weights_only=True)
    assert checkpoint["seq2seq"]["task"] == "Translator"


@pytest.mark.parametrize(
    ("verb", "checkpoint"), [("validate", "runs/quickstart/best.ckpt"), ("test", "best")]
)
def test_a_checkpoint_is_scored(run, verb, checkpoint):
    done = seq2seq(run[0], verb, *TINY, "--ckpt_path", checkpoint)
    assert done.status == 0, done.errors
    assert f"{'val' if verb == 'validate' else 'test'}/bleu" in done.output


def test_the_command_line_chooses_the_search_of_a_checkpoint(run):
    done = seq2seq(
        run[0],
        *("test", *TINY, "--ckpt_path", "runs/quickstart/best.ckpt"),
        *("--model.decoding.beam_size", "2", "--model.decoding.n_best", "3"),
    )
    assert done.status == 2
    assert "n_best=3 is more than beam_size=2" in done.errors


def test_the_last_checkpoint_is_of_the_last_epoch_also_when_it_is_no_new_best(run):
    last = torch.load(run[0] / "runs/quickstart/last.ckpt", weights_only=True)
    best = torch.load(run[0] / "runs/quickstart/best.ckpt", weights_only=True)
    assert last["global_step"] == 2 * 3
    # Nothing is decoded right so early: the first of two equal scores stays the best.
    assert best["global_step"] == 3


def test_a_run_goes_on_from_its_last_checkpoint(run):
    done = seq2seq(run[0], "fit", *TINY, "--trainer.max_epochs", "3", "--ckpt_path", "last")
    assert done.status == 0, done.errors
    assert "epoch 2, step" in done.output
    assert "epoch 0, step" not in done.output
    last = torch.load(run[0] / "runs/quickstart/last.ckpt", weights_only=True)
    assert last["epoch"] == 2
    assert last["global_step"] == 3 * 3


def test_a_run_in_the_place_of_another_says_so(tmp_path, caplog):
    options = [*TINY, "--trainer.max_epochs", "1"]
    for count in (0, 1):
        caplog.clear()
        assert seq2seq(tmp_path, "fit", *options).status == 0
        assert caplog.text.count("runs/quickstart has the checkpoints of an earlier run") == count
    seq2seq(tmp_path, "fit", *options, "--ckpt_path", "last")
    assert caplog.text.count("an earlier run") == 1


def test_a_saved_configuration_runs_again(run, tmp_path):
    saved = run[0] / "runs/quickstart/config.yaml"
    done = seq2seq(tmp_path, "fit", "--config", str(saved), "--trainer.max_epochs", "1")
    assert done.status == 0, done.errors
    assert (tmp_path / "runs/quickstart/last.ckpt").exists()


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_help_shows_the_options_of_this_project(tmp_path, verb):
    done = seq2seq(tmp_path, verb, "--help")
    assert done.status == 0, done.errors
    for option in ("--run_dir", "--checkpoint.monitor", "--model CONFIG", "--data CONFIG"):
        assert option in done.output


def test_help_of_a_model_explains_its_options(tmp_path):
    done = seq2seq(tmp_path, "fit", "--model.help", "Translator")
    assert done.status == 0, done.errors
    for text in (
        "--model.hidden_size",
        "Width of the recurrent state",
        "--model.decoding.beam_size",
    ):
        assert text in done.output


def test_print_config_gives_every_option_and_can_be_used_again(tmp_path):
    printed = seq2seq(tmp_path, "fit", *TINY, "--print_config")
    assert printed.status == 0, printed.errors
    config = yaml.safe_load(printed.output)
    assert config["model"]["init_args"]["decoding"]["beam_size"] == 5
    assert config["data"]["init_args"]["train_count"] == 300
    (tmp_path / "again.yaml").write_text(printed.output)
    again = seq2seq(tmp_path, "fit", "--config", "again.yaml", "--print_config")
    assert yaml.safe_load(again.output) == config


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (
            ["--model.cell", "sru", "--model.attention", "cosine"],
            ["cell is 'sru'; choose one of rnn, gru, lstm", "attention is 'cosine'"],
        ),
        (["--model.decoder_layers", "1"], ["needs two decoder layers or more"]),
        (["--model.hidden_sze", "3"], ["Option 'hidden_sze' is not accepted"]),
        (["--model.hidden_size", "many"], ["Expected a <class 'int'>. Got value: many"]),
        (["--config", "absent.yaml"], ["absent.yaml"]),
        (["--data.vocab_size", "30"], ["--data.vocab_size"]),
        (["--ckpt_path", "absent.ckpt"], ["absent.ckpt: there is no such file"]),
        (["--ckpt_path", "absent"], ["absent: there is no such file"]),
        (["--trainer.logger", "test_cli.Uninstalled"], ["Requirement 'wandb' not met"]),
    ],
)
def test_what_a_user_can_mend_is_one_message(tmp_path, arguments, messages):
    done = seq2seq(tmp_path, "fit", *TINY, *arguments)
    assert done.status == 2
    assert "Traceback" not in done.errors
    for message in messages:
        assert message in done.errors


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_a_model_that_was_never_trained_is_not_scored(tmp_path, verb):
    done = seq2seq(tmp_path, verb, *TINY)
    assert done.status == 2
    assert f"seq2seq {verb} needs a trained model" in done.errors


def test_predict_writes_a_line_per_line(run):
    done = seq2seq(run[0], "predict", *TINY, "--ckpt_path", "runs/quickstart/best.ckpt")
    assert done.status == 0, done.errors
    lines = (run[0] / "runs/quickstart/predictions.txt").read_text().splitlines()
    assert len(lines) == 20


class Code:
    """What a pickle can do when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["evil.ckpt", "evil", "runs/quickstart/last.ckpt"])
def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": Code(tmp_path / "executed")}, path)
    ckpt_path = "last" if name.endswith("last.ckpt") else name
    for verb in ("fit", "test"):
        done = seq2seq(tmp_path, verb, *TINY, "--ckpt_path", ckpt_path)
        assert done.status == 2
        assert "nothing in it was executed" in done.errors
        assert not (tmp_path / "executed").exists()


def test_a_run_without_a_best_checkpoint_says_where_it_would_be(tmp_path):
    done = seq2seq(tmp_path, "test", *TINY, "--ckpt_path", "best")
    assert done.status == 2
    assert "runs/quickstart/best.ckpt: there is no such file" in done.errors


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "seq2seq", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "{fit,validate,test,predict}" in done.stdout


def test_sigterm_ends_with_status_143(tmp_path):
    process = subprocess.Popen(
        ["seq2seq", "fit", *TINY, "--trainer.max_epochs", "1000"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "runs/quickstart/last.ckpt").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=300) == 143
