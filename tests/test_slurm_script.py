"""What `configs/cluster/slurm.sh` does when `seq2seq` has ended, without a SLURM."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "configs/cluster/slurm.sh"
VARIABLES = {"SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "3", "SLURM_NTASKS_PER_NODE": "2"}


def run(folder, ending):
    """Run the script where srun is what ends in some way; return its status and its requeues."""
    for name, line in {"srun": ending, "scontrol": 'echo "$@" >> asked'}.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    environment = {**os.environ, **VARIABLES, "PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", SCRIPT], cwd=folder, env=environment, check=False)
    asked = folder / "asked"
    return done.returncode, asked.read_text() if asked.exists() else ""


@pytest.mark.parametrize("ending", ["exit 143", "kill -USR1 $$"])
def test_a_job_that_was_asked_to_end_is_put_back_into_the_queue(tmp_path, ending):
    status, asked = run(tmp_path, ending)
    assert status == (143 if ending == "exit 143" else 138)
    assert asked == "requeue 17\n"


@pytest.mark.parametrize("status", [0, 1, 2, 137])
def test_a_job_that_ended_otherwise_is_not(tmp_path, status):
    assert run(tmp_path, f"exit {status}") == (status, "")
