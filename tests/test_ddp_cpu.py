"""Two processes on a laptop, which the trainer's configuration starts by itself."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_line import TINY

TWO_PROCESSES = Path(__file__).parents[1] / "configs/trainer/ddp_cpu.yaml"


@pytest.mark.slow
def test_a_recipe_trains_on_two_processes(tmp_path):
    command = [sys.executable, "-m", "seq2seq", "fit", *TINY, "--config", str(TWO_PROCESSES)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Starting with 2 processes" in done.stderr
    printed = yaml.safe_load((tmp_path / "runs/quickstart/config.yaml").read_text())["trainer"]
    assert printed["devices"] == 2
    assert printed["gradient_clip_val"] == 1.0  # as the recipe has it
    assert (tmp_path / "runs/quickstart/best.ckpt").exists()
