"""Runs the command line in this process, as importing torch takes longer than all the rest."""

import contextlib
import io
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest

from seq2seq.cli import main

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
TINY = [
    *("--config", str(QUICKSTART)),
    *("--data.train_count", "300", "--data.val_count", "20", "--data.test_count", "20"),
    *("--data.vocab_size", "90", "--model.hidden_size", "12", "--model.embedding_size", "8"),
    *("--model.optimization.warmup_steps", "2", "--trainer.max_epochs", "2"),
    *("--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "1"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
]


class Outcome(NamedTuple):
    status: int
    output: str
    errors: str


def seq2seq(folder, *arguments):
    """Run ``seq2seq`` with some arguments in a folder."""
    output, errors, status = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # Lightning's advice is no matter of these tests
        patch.setattr(sys, "argv", ["seq2seq", *arguments])
        patch.chdir(folder)
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
    return Outcome(status, output.getvalue(), errors.getvalue())
