"""Runs of the command line in processes of their own, ended by signals."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from command_line import QUICKSTART

pytestmark = pytest.mark.slow
LIMIT_SECONDS = 300  # of a machine with other things to do

OPTIONS = [
    *("--config", str(QUICKSTART)),
    *("--data.train_count", "700", "--data.val_count", "20", "--data.test_count", "20"),
    *("--data.vocab_size", "90", "--model.hidden_size", "12", "--model.embedding_size", "8"),
    *("--data.batch_size", "20", "--model.dropout", "0.3", "--model.word_dropout", "0.1"),
    *("--model.teacher_forcing.schedule", "exponential"),
    *("--model.optimization.warmup_steps", "2", "--trainer.accumulate_grad_batches", "2"),
    *("--trainer.max_epochs", "4", "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
    *("--trainer.callbacks+", "Slowly", "--last.every_n_train_steps", "3"),
    *("--run_dir", "run", "--ckpt_path", "last"),
]
# So that there is time to hit a run that would end at once.
SLOWLY = """
import time
from lightning.pytorch.callbacks import Callback
class Slowly(Callback):
    def on_train_batch_end(self, *_):
        time.sleep(0.02)
from seq2seq.cli import main
main()
"""


def start(folder, *options, **variables):
    (folder / "run.py").write_text(SLOWLY)
    command = [sys.executable, "run.py", "fit", *OPTIONS, *options]
    environment = {**os.environ, **variables}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_next_checkpoint(folder, run, saved=None):
    """Wait until a run has saved something of its own; ``saved`` is when that was there before."""
    checkpoint = folder / "run/last.ckpt"
    while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == saved:
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.01)


def end_midway(folder, number, *options):
    """Let a run save something of its own, end it by a signal, and return its exit status."""
    checkpoint = folder / "run/last.ckpt"
    saved = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
    run = start(folder, *options)
    wait_for_next_checkpoint(folder, run, saved)
    time.sleep(0.1)
    run.send_signal(number)
    run.communicate()
    return run.returncode


def finish(folder, *options):
    run = start(folder, *options)
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    return torch.load(folder / "run/last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return finish(tmp_path_factory.mktemp("whole"))


def assert_same(found, expected):
    assert found["global_step"] == expected["global_step"]
    for name, value in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value), name


def test_a_killed_run_ends_as_one_that_was_not_killed(tmp_path, whole):
    assert end_midway(tmp_path, signal.SIGKILL) == -signal.SIGKILL
    assert end_midway(tmp_path, signal.SIGKILL, "--data.num_workers", "1") == -signal.SIGKILL
    assert_same(finish(tmp_path, "--data.num_workers", "2"), whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_run_that_is_told_to_end_saves_and_says_so(tmp_path, whole, number):
    assert end_midway(tmp_path, number) == 143
    assert_same(finish(tmp_path), whole)


def test_where_one_of_two_processes_is_told_to_end_both_do(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    options = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    common = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    first, second = (
        start(tmp_path, *options, **common, WORLD_SIZE="2", LOCAL_RANK=str(rank)) for rank in (0, 1)
    )
    try:
        wait_for_next_checkpoint(tmp_path, first)
        second.send_signal(signal.SIGUSR1)
        errors = [run.communicate(timeout=LIMIT_SECONDS)[1] for run in (first, second)]
    finally:
        for run in (first, second):
            run.kill()
    assert [run.returncode for run in (first, second)] == [143, 143], errors
    assert sum(each.count("Asked to end: saved") for each in errors) == 1
    checkpoints = {path.name for path in (tmp_path / "run").rglob("*.ckpt*")}
    assert checkpoints - {"best.ckpt"} == {"last.ckpt"}
    [steps] = re.findall(r"last\.ckpt after step (\d+)", "".join(errors))
    checkpoint = torch.load(tmp_path / "run/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == int(steps) > 0
