import errno
import os
import signal
from pathlib import Path

import pytest
import torch
import toy_reviews
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from seq2seq.checkpoint_files import DurableCheckpointIO
from seq2seq.errors import CheckpointError
from seq2seq.interruption import LastCheckpoint
from seq2seq.tasks.options import Optimization, TeacherForcing
from seq2seq.tasks.text_classification import TextClassifier


class Alarm(Callback):
    """Sends signals to its own process in the middle of a batch."""

    def __init__(self, batch, *signals):
        self.batch = batch
        self.signals = signals

    def on_before_backward(self, trainer, *_):
        if trainer.fit_loop.epoch_loop.batch_idx == self.batch:
            for number in self.signals:
                os.kill(os.getpid(), number)
            self.signals = ()


@pytest.fixture
def build_translator(make_dates, make_translator):
    forcing = TeacherForcing(schedule="exponential", decay_steps=5.0)
    learning = {"teacher_forcing": forcing, "optimization": Optimization()}
    return lambda: (make_translator(dropout=0.4, word_dropout=0.2, **learning), make_dates())


@pytest.fixture
def build_classifier(tmp_path):
    source = toy_reviews.write_splits(tmp_path / "reviews")
    sizes = {"embedding_size": 5, "hidden_size": 6, "decoder_size": 7}
    learning = {"dropout": 0.4, "word_dropout": 0.2, "optimization": Optimization()}
    return lambda: (
        TextClassifier(14, 2, **sizes, **learning),
        toy_reviews.module(source, batch_size=7),
    )


@pytest.fixture(params=["build_translator", "build_classifier"])
def fit(request, make_trainer, tmp_path):
    """Return what trains with dropout, random choices and accumulated gradients."""
    build = request.getfixturevalue(request.param)

    def fit(name, *callbacks, seed=1, **options):
        torch.manual_seed(seed)
        task, data = build()
        # As the command line makes it.
        last = LastCheckpoint(
            dirpath=tmp_path / name,
            filename="last",
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )
        trainer = make_trainer(
            max_epochs=3,  # from which the length of the training follows only with a loader
            callbacks=[*callbacks, last],
            enable_checkpointing=True,
            accumulate_grad_batches=2,
            limit_val_batches=0,
            limit_train_batches=7,
            plugins=[DurableCheckpointIO()],
        )
        trainer.fit(task, data, weights_only=True, **options)
        return {name: value.clone() for name, value in task.state_dict().items()}

    return fit


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("batch", [0, 3, 6])  # of seven, two of which make a step
@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGUSR1, signal.SIGTERM)])
def test_a_run_that_was_told_to_end_goes_on_as_if_it_had_not(fit, tmp_path, batch, signals):
    whole = fit("whole")
    before = {number: signal.getsignal(number) for number in signals}
    with pytest.raises(SIGTERMException):
        fit("run", Alarm(batch, *signals))
    assert {number: signal.getsignal(number) for number in signals} == before
    checkpoint = tmp_path / "run/last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["global_step"] == {0: 1, 3: 2, 6: 4}[batch]
    # Where the weights and all other random state begin elsewhere.
    with pytest.raises(SIGTERMException):  # twice in a row
        fit("run", Alarm(4, *signals), seed=2, ckpt_path=checkpoint)
    resumed = fit("run", seed=3, ckpt_path=checkpoint)
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_an_unfinished_checkpoint_never_has_the_name_of_a_whole_one(tmp_path, monkeypatch):
    path = tmp_path / "runs/last.ckpt"
    files = DurableCheckpointIO()
    files.save_checkpoint({"step": 1}, path)

    def fail(descriptor):  # noqa: ARG001
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    refusal = r"last\.ckpt: cannot be written: No space left.*still the one before.*Make room"
    with pytest.raises(CheckpointError, match=refusal):
        files.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [each.name for each in path.parent.iterdir()] == ["last.ckpt"]


def test_a_name_appears_after_the_content_has_reached_the_disk(tmp_path, monkeypatch):
    path, synced = tmp_path / "last.ckpt", []
    sync = os.fsync

    def record(descriptor):
        synced.append((Path(f"/proc/self/fd/{descriptor}").resolve().name, path.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    DurableCheckpointIO().save_checkpoint({"step": 1}, path)
    assert synced == [("last.ckpt.partial", False), (tmp_path.name, True)]
