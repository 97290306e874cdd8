"""The processes of a prediction themselves: how they end, and what they leave."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import toy_translation
from command_line import TINY, seq2seq
from conftest import trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch.multiprocessing.spawn import spawn
from toy_sentiment import LINES, save_classifier

from seq2seq import predict
from seq2seq.errors import ConfigError
from seq2seq.parallel_prediction import ProcessError
from seq2seq.prediction_writer import PredictionWriter
from seq2seq.tasks.translation import Translator

SCRIPT = [sys.executable, "-m", "seq2seq.predict", "--device", "cpu"]
REPEATS = 200  # of the lines; with a batch of 1, a part has 16 of them


@pytest.fixture(scope="module")
def sentiment(tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("sentiment"))


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.txt"
    lines = (f"{number} {line}\n" for number in range(REPEATS) for line in LINES)
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path):
    """Return what predicts in this process."""

    def run(checkpoint, source, *options):
        output = tmp_path / "one.txt"
        files = ["--ckpt_path", checkpoint, "--input", source, "--output", output]
        predict.run([*map(str, files), "--device", "cpu", "--batch_size", "1", *options])
        return output.read_text()

    return run


# A process that ends, with a script in its place; the other one would go on for long.


@pytest.mark.parametrize(
    ("ending", "message", "shown"),
    [
        ("kill -9 $$", r"was ended by signal 9 \(SIGKILL\)\. Perhaps .*: try fewer", ""),
        ("kill -15 $$", r"was ended by signal 15 \(SIGTERM\)\.$", ""),
        ("echo seq2seq-predict: x.txt: bad. >&2; exit 1", r"failed with status 1: x\.txt: bad", ""),
        ("echo Oh. >&2; exit 3", r"failed with status 3; what it wrote stands above", "Oh.\n"),
    ],
)
def test_the_whole_run_fails_with_one_process(
    source, tmp_path, monkeypatch, capfd, ending, message, shown
):
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\ncase "$*" in *"--process 1") {ending};; esac\nexec sleep 100\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    arguments = ["--ckpt_path", "none.ckpt", "--input", str(source), "--devices", "2"]
    start = time.monotonic()
    with pytest.raises(ProcessError, match=r"^process 2 of 2 " + message):
        predict.run([*arguments, "--device", "cpu", "--output", str(tmp_path / "out.txt")])
    assert time.monotonic() - start < 50
    assert capfd.readouterr().err == shown
    assert not (tmp_path / "out.txt.parts").exists()


# Real processes.


@pytest.mark.slow
def test_standard_input_is_shared_by_processes(run, sentiment, source):
    expected = run(sentiment, source, "--format", "csv")
    output = source.with_name("piped.csv")
    files = ["--ckpt_path", str(sentiment), "--output", str(output), "--format", "csv"]
    done = subprocess.run(
        [*SCRIPT, *files, "--batch_size", "1", "--devices", "2"],
        input=source.read_bytes(),
        capture_output=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert output.read_text() == expected
    assert not output.with_name("piped.csv.parts").exists()


def children(process):
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes below /proc")
def test_after_a_kill_the_run_fails_and_goes_on_where_it_was(run, sentiment, source):
    expected = run(sentiment, source, "--format", "jsonl")
    output = source.with_name("killed.jsonl")
    parts = output.with_name("killed.jsonl.parts")
    files = ["--ckpt_path", str(sentiment), "--input", str(source), "--output", str(output)]
    command = [*SCRIPT, *files, "--format", "jsonl", "--batch_size", "1", "--devices", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 200
        while len(list(parts.glob("[0-9]*.json"))) < 3:
            assert time.monotonic() < end
            time.sleep(0.01)
        first, second = children(process)
        os.kill(int(second), signal.SIGKILL)
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    message = errors.decode()
    assert message.startswith("seq2seq-predict: process 2 of 2 was ended by signal 9 (SIGKILL).")
    assert "finished parts are kept in" in message
    assert not Path(f"/proc/{first}").exists()
    assert not output.exists()
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("[0-9]*.json")}
    assert 3 <= len(kept) < REPEATS * len(LINES) / 16
    done = subprocess.run([*command, "--resume"], capture_output=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, b"")
    assert output.read_text() == expected
    assert not parts.exists()


# With the trainer of `seq2seq predict`.

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


KILLED = """
import os, signal
from lightning.pytorch.callbacks import Callback
class Killed(Callback):
    def on_predict_batch_start(self, trainer, task, batch, batch_idx):
        if (trainer.global_rank, batch_idx) == (1, 3):
            os.kill(os.getpid(), signal.SIGKILL)
from seq2seq.cli import main
main()
"""


@pytest.mark.slow
def test_after_a_kill_of_a_rank_the_run_fails_and_goes_on_where_it_was(tmp_path):
    done = seq2seq(tmp_path, "fit", *TINY, "--trainer.max_epochs", "1")
    assert done.status == 0, done.errors
    options = [*TINY, "--ckpt_path", "last", "--data.eval_batch_size", "1"]
    done = seq2seq(tmp_path, "predict", *options, "--predictions.path", "expected.txt")
    assert done.status == 0, done.errors
    options += ["--predictions.path", "out.txt"]
    (tmp_path / "run.py").write_text(KILLED)
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.callbacks+", "Killed"]
    killed = subprocess.run(
        [sys.executable, "run.py", "predict", *options, *two],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    # Lightning ends the other one within seconds, where it does not end before that by itself.
    assert killed.returncode in (1, -signal.SIGKILL), killed.stderr
    assert "kept in out.txt.parts" in killed.stderr or "with code -9" in killed.stderr
    assert not (tmp_path / "out.txt").exists()
    [rows] = (tmp_path / "out.txt.parts").glob("rank1-*.jsonl")
    assert [json.loads(line)["place"] for line in rows.read_text().splitlines()] == [1, 3, 5]
    done = seq2seq(tmp_path, "predict", *options, "--predictions.resume", "true")
    assert done.status == 0, done.errors
    assert "finished predictions are taken from out.txt.parts" in done.output
    assert (tmp_path / "out.txt").read_text() == (tmp_path / "expected.txt").read_text()
    assert not (tmp_path / "out.txt.parts").exists()
