"""Jobs of `configs/cluster/slurm.sh` on a real SLURM, which the test starts for itself."""

import os
import re
import time
from pathlib import Path

import pytest
from long_run import OPTIONS, STEPS, assert_same_end, last_checkpoint, wait_until
from slurm_cluster import Cluster, missing_programs

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        bool(missing_programs()), reason=f"this machine has no {', '.join(missing_programs())}"
    ),
]
SCRIPT = Path(__file__).parents[1] / "configs/cluster/slurm.sh"
LIMIT_SECONDS = 300  # of a machine with other things to do


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def submit(cluster):
    """Return what submits a job; cancels what is left of it."""
    jobs = []

    def submit(folder, *options, **variables):
        jobs.append(cluster.submit(folder, SCRIPT, *options, OMP_NUM_THREADS="1", **variables))
        return jobs[-1]

    yield submit
    for job in jobs:
        if not has_ended(cluster, job):
            cluster.run("scancel", job)
    wait_until(lambda: not cluster.run("squeue", "--noheader"), LIMIT_SECONDS, cluster.logs)


def has_ended(cluster, job):
    return cluster.state(job)[0] in {"COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT"}


def finish(cluster, job, folder):
    """Wait for the end of a job; return how often it was started again, its log and its weights."""
    wait_until(lambda: has_ended(cluster, job), LIMIT_SECONDS, cluster.logs)
    state, restarts = cluster.state(job)
    log = (folder / "log").read_text()
    assert state == "COMPLETED", log
    return restarts, log, last_checkpoint(folder)


def wait_for_file(cluster, job, folder, name):
    def is_there():
        assert not has_ended(cluster, job), (folder / "log").read_text()
        return (folder / name).exists()

    wait_until(is_there, LIMIT_SECONDS, cluster.logs)


@pytest.fixture(scope="module")
def whole(cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    job = cluster.submit(folder, SCRIPT, *OPTIONS, OMP_NUM_THREADS="1")
    restarts, log, checkpoint = finish(cluster, job, folder)
    assert restarts == 0
    assert "Starting with 2 processes" in log
    return checkpoint


@pytest.mark.parametrize(
    "command",
    [
        ("scontrol", "requeue"),
        # What `--signal` of the script does when the time is nearly up, at another time.
        ("scancel", "--signal=USR1"),
    ],
    ids=lambda command: command[0],
)
def test_a_job_that_is_put_back_into_the_queue_ends_as_one_that_was_not(
    cluster, submit, whole, tmp_path, command
):
    # SLURM sends signals to the workers of the loaders, too.
    job = submit(tmp_path, *OPTIONS, "--data.num_workers", "1")
    wait_for_file(cluster, job, tmp_path, "run/last.ckpt")
    cluster.run(*command, job)
    restarts, log, checkpoint = finish(cluster, job, tmp_path)
    assert restarts == 1
    steps = re.findall(r"Asked to end: saved .*last\.ckpt after step (\d+)", log)
    assert len(steps) == 1
    assert 0 < int(steps[0]) < STEPS
    assert "Restored all states from the checkpoint" in log
    assert_same_end(checkpoint, whole)


OBEDIENT = """\
#!/bin/sh
trap 'exit 143' TERM USR1
touch started
while :; do sleep 0.1; done
"""


def test_a_cancelled_job_stays_cancelled(cluster, submit, tmp_path):
    program = tmp_path / "seq2seq"
    program.write_text(OBEDIENT)
    program.chmod(0o755)
    job = submit(tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    wait_for_file(cluster, job, tmp_path, "started")
    cluster.run("scancel", job)
    wait_until(lambda: not cluster.run("squeue", "--noheader"), LIMIT_SECONDS, cluster.logs)
    time.sleep(1)  # what its script did last has been done
    assert cluster.state(job) == ("CANCELLED", 0)
    assert "143" in (tmp_path / "log").read_text()
