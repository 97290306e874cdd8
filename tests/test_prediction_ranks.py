"""The ranks of ``seq2seq predict``: what they write together, and how they end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta

import pytest
import torch
import toy_translation
from command_line import TINY, seq2seq
from conftest import trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch.multiprocessing.spawn import spawn

from seq2seq.errors import ConfigError
from seq2seq.prediction_folder import RowFolder
from seq2seq.prediction_writer import PredictionWriter
from seq2seq.tasks.translation import Translator

SETS = {"five": 5, "one": 1}


class Recorder(Callback):
    """Notes which inputs are decoded, and fails at a batch."""

    def __init__(self, failing=None):
        self.places, self.failing = [], failing

    def on_predict_batch_start(self, trainer, task, batch, batch_idx):  # noqa: ARG002
        if batch_idx == self.failing:
            raise ZeroDivisionError
        self.places += batch.indices.tolist()


def predict_texts(root, name, output, *, resume=False, failing=None, **options):
    torch.manual_seed(2)
    data = toy_translation.module(root, predict=name, eval_batch_size=2)
    task = Translator(40, embedding_size=6, hidden_size=7)
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter)  # so that it tells sentences apart
    recorder = Recorder(failing)
    callbacks = [recorder, PredictionWriter(str(output), resume)]
    trainer(root, callbacks=callbacks, **options).predict(task, data)
    return recorder.places


def refuse(*_):
    raise PermissionError


def predict_in_pair(rank, root, port):
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": "2", "NODE_RANK": "0"}
    torch.set_num_threads(1)

    def predict(name, output, **options):
        strategy = DDPStrategy(timeout=timedelta(minutes=4))
        return predict_texts(root, name, root / output, devices=2, strategy=strategy, **options)

    for name in SETS:
        predict(name, f"{name}.two")
    assert predict("five", "resumed", resume=True) == [[2, 4], [3]][rank]
    with pytest.raises(ConfigError, match=r"left\.parts: holds parts of a run"):
        predict("five", "left")  # on both, of which only one has looked
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowFolder, "begin", refuse)
        with pytest.raises(PermissionError):
            predict("five", "other")


@pytest.mark.slow
def test_two_ranks_write_one_file_in_order_also_where_one_has_nothing_to_do(tmp_path):
    for split, count, seed in (("train", 29, 1), ("val", 3, 2), ("test", 3, 3)):
        toy_translation.write(tmp_path, split, toy_translation.sentences(count, seed))
    for name in SETS:
        toy_translation.write(tmp_path, name, toy_translation.sentences(SETS[name], 4))
        predict_texts(tmp_path, name, tmp_path / f"{name}.one")
    for output in ("resumed", "left"):  # of one process
        with pytest.raises(ZeroDivisionError):
            predict_texts(tmp_path, "five", tmp_path / output, failing=1)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    spawn(predict_in_pair, args=(tmp_path, port), nprocs=2)
    for name, count in SETS.items():
        written = (tmp_path / f"{name}.two").read_text()
        assert written == (tmp_path / f"{name}.one").read_text()
        assert written.count("\n") == count
        assert len({*written.splitlines()}) == count
    assert (tmp_path / "resumed").read_text() == (tmp_path / "five.one").read_text()
    assert {path.name for path in tmp_path.glob("*.parts")} == {"left.parts"}


# Rank 1 waits at its fourth batch; one of the two may be killed then.
STAGED = """
import os, signal, time
from pathlib import Path
from lightning.pytorch.callbacks import Callback

def wait_for(name):
    end = time.monotonic() + 100
    while not Path(name).exists() and time.monotonic() < end:
        time.sleep(0.02)

class Staged(Callback):
    def on_predict_batch_start(self, trainer, task, batch, batch_idx):
        rank = trainer.global_rank
        if (rank, batch_idx) == (1, 3):
            Path("held").touch()
        if (os.environ["KILLED"], batch_idx) == (str(rank), 3):
            wait_for("held")
            os.kill(os.getpid(), signal.SIGKILL)
        if (rank, batch_idx) == (1, 3):
            wait_for("go")

    def teardown(self, trainer, task, stage):
        Path(f"decoded{trainer.global_rank}").touch()

from seq2seq.cli import main
main()
"""
COMMAND = ["predict", *TINY, "--ckpt_path", "last", "--data.eval_batch_size", "1"]
GOING_ON = ["--predictions.path", "out.txt", "--predictions.resume", "true"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a checkpoint, and with what one process predicts."""
    folder = tmp_path_factory.mktemp("trained")
    done = seq2seq(folder, "fit", *TINY, "--trainer.max_epochs", "1")
    assert done.status == 0, done.errors
    done = seq2seq(folder, *COMMAND, "--predictions.path", "expected.txt")
    assert done.status == 0, done.errors
    (folder / "staged.py").write_text(STAGED)
    return folder


@pytest.fixture
def start(trained):
    """Return what predicts with two ranks, of which one may be killed."""
    for name in ("held", "go", "decoded0", "decoded1", "out.txt"):
        (trained / name).unlink(missing_ok=True)
    shutil.rmtree(trained / "out.txt.parts", ignore_errors=True)
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.callbacks+", "Staged"]
    started = []

    def start(killed):
        # Its error output ends when both of them have.
        process = subprocess.Popen(
            [sys.executable, "staged.py", *COMMAND, "--predictions.path", "out.txt", *two],
            cwd=trained,
            env={**os.environ, "KILLED": str(killed)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    (trained / "go").touch()
    for process in started:
        process.kill()
        process.communicate(timeout=100)


def wait_for(path, process):
    end = time.monotonic() + 200
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


def places(folder, rank):
    [rows] = (folder / "out.txt.parts").glob(f"rank{rank}-*.jsonl")
    return [json.loads(line)["place"] for line in rows.read_text().splitlines()]


def check_resumed(folder, finished):
    done = seq2seq(folder, *COMMAND, *GOING_ON)
    assert done.status == 0, done.errors
    assert f"{finished} finished predictions are taken from out.txt.parts" in done.output
    assert "20 predictions written to out.txt" in done.output
    assert (folder / "out.txt").read_text() == (folder / "expected.txt").read_text()
    assert not (folder / "out.txt.parts").exists()


@pytest.mark.slow
def test_after_a_kill_of_a_rank_the_run_fails_and_goes_on_where_it_was(start, trained):
    process = start(killed=1)
    _, errors = process.communicate(timeout=300)
    # Lightning ends the other one within seconds, where it does not end before that by itself.
    assert process.returncode in (1, -signal.SIGKILL), errors
    assert "kept in out.txt.parts" in errors or "with code -9" in errors
    assert not (trained / "out.txt").exists()
    assert places(trained, 1) == [1, 3, 5]
    check_resumed(trained, 3 + len(places(trained, 0)))


@pytest.mark.slow
def test_a_rank_that_outlives_its_run_ends_and_what_it_writes_does_no_harm(
    start, trained, monkeypatch
):
    process = start(killed=0)
    process.wait(300)
    assert process.returncode == -signal.SIGKILL
    assert places(trained, 0) == [0, 2, 4]
    assert places(trained, 1) == [1, 3, 5]
    whole = Translator.predict_step
    seen = []

    def predict_step(*given):
        if not seen:  # what is finished has been read
            (trained / "go").touch()
            process.communicate(timeout=100)  # the other rank ends, too
            seen.append(places(trained, 1))
        return whole(*given)

    monkeypatch.setattr(Translator, "predict_step", predict_step)
    check_resumed(trained, 6)
    assert seen == [[1, 3, 5, 7]]  # with one batch more, which was decoded again


@pytest.mark.slow
def test_a_rank_that_waits_for_the_others_ends_with_them_when_asked_to(start, trained):
    process = start(killed=None)
    wait_for(trained / "held", process)
    wait_for(trained / "decoded0", process)
    time.sleep(3)  # until it waits
    process.terminate()
    assert process.wait(300) == 143  # also while the other one is still at its batch
    (trained / "go").touch()
    _, errors = process.communicate(timeout=100)
    assert "What is finished is kept in out.txt.parts: add --predictions.resume true" in errors
    assert not (trained / "out.txt").exists()
    assert places(trained, 0) == list(range(0, 20, 2))
    assert places(trained, 1) == [1, 3, 5, 7]
    check_resumed(trained, 14)
