"""torchrun puts a run in which a process has died together again."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from long_run import OPTIONS, assert_same_end, last_checkpoint, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes below /proc"),
]
LIMIT_SECONDS = 300  # of a machine with other things to do
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    *("--max-restarts", "2", "-m", "seq2seq", "fit", *OPTIONS, "--ckpt_path", "last"),
    *("--trainer.devices", "2", "--trainer.strategy", "ddp"),
]
# Else the processes of a restart find the addresses of the dead ones (pytorch issue 135712; seen
# with torch 2.15).
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


@pytest.fixture
def start(tmp_path):
    """Return what starts torchrun in a folder; ends what is left of it."""
    started = []

    def start(name):
        folder = tmp_path / name
        folder.mkdir()
        with (folder / "log").open("w") as log:
            run = subprocess.Popen(
                TORCHRUN, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT
            )
        started.append(run)
        return run, folder

    yield start
    for run in started:
        if run.poll() is None:
            run.terminate()  # ends its processes, too
            run.wait()


def rank_processes(run):
    """Return the process of each rank."""
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    found = {}
    for child in children:
        with suppress(FileNotFoundError, ProcessLookupError):  # of a process that has just ended
            for variable in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                if variable.startswith(b"RANK="):
                    found[int(variable.removeprefix(b"RANK="))] = int(child)
    return found


def wait_for_others(run, folder, before):
    """Wait until other processes than ``before`` are the two ranks."""

    def are_others():
        assert run.poll() is None, (folder / "log").read_text()
        now = rank_processes(run)
        return len(now) == 2 and not {*now.values()} & {*before.values()}

    wait_until(are_others, LIMIT_SECONDS, (folder / "log").read_text)


def wait_for_next_checkpoint(run, folder):
    path = folder / "run/last.ckpt"
    before = path.stat().st_mtime_ns if path.exists() else None

    def is_saved():
        assert run.poll() is None, (folder / "log").read_text()
        return path.exists() and path.stat().st_mtime_ns != before

    wait_until(is_saved, LIMIT_SECONDS, (folder / "log").read_text)


def test_a_run_whose_processes_are_killed_ends_as_one_that_was_left_alone(start):
    whole, folder = start("whole")
    assert whole.wait(timeout=LIMIT_SECONDS) == 0, (folder / "log").read_text()
    expected = last_checkpoint(folder)
    shutil.rmtree(folder)

    run, folder = start("killed")
    for rank in (1, 0):
        wait_for_next_checkpoint(run, folder)
        killed = rank_processes(run)
        os.kill(killed[rank], signal.SIGKILL)
        wait_for_others(run, folder, killed)  # the other one may save once more before it ends
    assert run.wait(timeout=LIMIT_SECONDS) == 0, (folder / "log").read_text()
    log = (folder / "log").read_text()
    assert log.count("Restored all states from the checkpoint") == 2
    assert_same_end(last_checkpoint(folder), expected)
