"""A run on two processes that lasts long enough to be ended in the middle."""

import time

import torch
from command_line import QUICKSTART

STEPS = 150
SAVED_EVERY = 10
OPTIONS = [
    *("--config", str(QUICKSTART)),
    *("--data.train_count", "2000", "--data.val_count", "20", "--data.test_count", "20"),
    *("--data.vocab_size", "90", "--model.hidden_size", "12", "--model.embedding_size", "8"),
    *("--data.batch_size", "20", "--model.dropout", "0.3", "--model.word_dropout", "0.1"),
    *("--model.teacher_forcing.schedule", "exponential"),
    *("--model.optimization.warmup_steps", "2", "--trainer.accumulate_grad_batches", "2"),
    *("--trainer.max_epochs", "-1", "--trainer.max_steps", str(STEPS)),
    *("--trainer.accelerator", "cpu", "--trainer.check_val_every_n_epoch", "3"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
    *("--last.every_n_train_steps", str(SAVED_EVERY), "--run_dir", "run"),
]


def wait_until(is_so, seconds, because):
    """Wait for something to become true, and fail with a reason where it does not."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, because()
        time.sleep(0.05)


def last_checkpoint(folder):
    return torch.load(folder / "run/last.ckpt", weights_only=True)


def assert_same_end(found, expected):
    """Check that two runs have ended with the same weights, bit for bit, and the same optimiser."""
    assert found["global_step"] == expected["global_step"] == STEPS
    for name, value in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value), name
    states = (run["optimizer_states"][0]["state"] for run in (found, expected))
    for found_state, expected_state in zip(*(state.values() for state in states), strict=True):
        for name, value in expected_state.items():
            assert torch.equal(found_state[name], value), name
