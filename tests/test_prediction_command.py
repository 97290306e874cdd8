"""``seq2seq predict`` from the command line: what it takes up, and what it refuses."""

import os
import shutil

import pytest
import yaml
from command_line import TINY, seq2seq

from datamodules.synthetic import DatesDataModule
from seq2seq.tasks.translation import Translator


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a checkpoint, and what a prediction with it writes."""
    folder = tmp_path_factory.mktemp("run")
    done = seq2seq(folder, "fit", *TINY, "--trainer.max_epochs", "1")
    assert done.status == 0, done.errors
    done = command(folder)
    assert done.status == 0, done.errors
    return folder, (folder / "runs/quickstart/predictions.txt").read_text()


def command(folder, *options):
    return seq2seq(folder, "predict", *TINY, "--ckpt_path", "last", *options)


@pytest.fixture
def interrupted(run, monkeypatch):
    """Return the folder of the parts of a prediction that failed in its third batch."""
    count = iter(range(2))
    whole = Translator.predict_step
    monkeypatch.setattr(
        Translator, "predict_step", lambda *given: next(count, None) is None or whole(*given)
    )
    with pytest.raises(TypeError):
        command(run[0], "--predictions.path", "out.txt", "--data.eval_batch_size", "3")
    monkeypatch.undo()
    yield run[0] / "out.txt.parts"
    shutil.rmtree(run[0] / "out.txt.parts", ignore_errors=True)


GOING_ON = ["--predictions.path", "out.txt", "--predictions.resume", "true"]


def test_a_command_goes_on_with_other_batches(run, interrupted):
    assert interrupted.exists()
    done = command(run[0], *GOING_ON, "--data.eval_batch_size", "4", "--data.num_workers", "1")
    assert done.status == 0, done.errors
    assert "6 finished predictions are taken from out.txt.parts" in done.output
    assert (run[0] / "out.txt").read_text() == run[1]
    assert not interrupted.exists()


def test_a_command_refuses_to_mix_what_other_options_made(run, interrupted, monkeypatch):
    monkeypatch.setattr(DatesDataModule, "prepare_data", None)  # refused before that
    unasked = command(run[0], "--predictions.path", "out.txt")
    assert (unasked.status, unasked.output) == (2, "")
    assert "out.txt.parts: holds parts of a run" in unasked.errors
    os.utime(run[0] / "runs/quickstart/last.ckpt")
    changed = command(run[0], *GOING_ON, "--model.decoding.beam_size", "2", "--data.predict", "val")
    assert changed.status == 2
    for message in (
        "--predictions.resume true: out.txt.parts is of a run with another command:",
        "--ckpt_path was '",
        "--model.decoding.beam_size was 5, and is 2.",
        "--data.predict was 'test', and is 'val'.",
        "or delete out.txt.parts to begin anew",
    ):
        assert message in changed.errors
    assert interrupted.exists()


def test_a_second_writer_is_refused_with_the_options_to_use(run):
    done = command(run[0], "--trainer.callbacks+", "PredictionWriter")
    assert done.status == 2
    assert "give its options as --predictions.path and --predictions.resume" in done.errors


def test_a_configuration_from_before_there_was_the_option_still_loads(run, tmp_path):
    config = yaml.safe_load((run[0] / "runs/quickstart/config.yaml").read_text())
    assert {*config.pop("predictions")} == {"path", "resume"}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(config))
    options = ["--config", str(tmp_path / "old.yaml"), "--predictions.path", "again.txt"]
    done = seq2seq(run[0], "predict", *options)
    assert done.status == 0, done.errors
    assert (run[0] / "again.txt").read_text() == run[1]


@pytest.mark.parametrize("verb", ["predict", "test", "validate"])
def test_without_a_last_checkpoint_only_training_begins(tmp_path, verb):
    done = seq2seq(tmp_path, verb, *TINY, "--ckpt_path", "last")
    assert (done.status, done.output) == (2, "")
    assert "runs/quickstart/last.ckpt: " in done.errors
    assert not (tmp_path / "runs").exists()
