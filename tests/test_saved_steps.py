"""After which batches a run saves, and where one that is told to end goes on."""

import os
import signal

import pytest
import torch
import toy_translation
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from seq2seq.interruption import LastCheckpoint
from seq2seq.tasks.options import Optimization
from seq2seq.tasks.translation import Translator

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")


class Watch(Callback):
    """Notes batches, validations and savings, and asks its own process to end in one of them."""

    def __init__(self, batch=None, *, is_in_validation=False):
        self.ending = (batch, is_in_validation)
        self.steps = []
        self.validated = []
        self.saved = []

    @staticmethod
    def count(trainer):
        return trainer.fit_loop.total_batch_idx + 1

    def on_train_batch_start(self, trainer, module, batch, batch_number):  # noqa: ARG002
        self.steps.append((trainer.global_step, batch_number, batch.indices.tolist()))
        self.end(trainer, is_in_validation=False)

    def on_validation_start(self, trainer, *_):
        self.validated.append(self.count(trainer))
        self.end(trainer, is_in_validation=True)

    def on_save_checkpoint(self, trainer, *_):
        self.saved.append(self.count(trainer))

    def end(self, trainer, is_in_validation):
        if self.ending == (self.count(trainer), is_in_validation):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = toy_translation.write_splits(tmp_path_factory.mktemp("saved_steps") / "text")
    toy_translation.prepared(root)
    return root


@pytest.fixture
def fit(root, make_trainer, tmp_path):
    """Return what trains, and returns the weights; a run that was ended has none."""

    def fit(watch, saving=None, resume=None, batch_tokens=150, **options):
        torch.manual_seed(1)
        learning = {"dropout": 0.3, "optimization": Optimization(learning_rate=0.01)}
        task = Translator(40, embedding_size=5, hidden_size=6, **learning)
        last = LastCheckpoint(
            dirpath=tmp_path / "run",
            filename="last",
            enable_version_counter=False,
            save_on_train_epoch_end=False,
            **(saving or {}),
        )
        defaults = {"max_epochs": 3, "limit_val_batches": 1, "limit_train_batches": 4}
        trainer = make_trainer(
            callbacks=[watch, last], enable_checkpointing=True, **{**defaults, **options}
        )
        data = toy_translation.module(root, batch_tokens=batch_tokens)
        try:
            trainer.fit(task, data, ckpt_path=resume, weights_only=True)
        except SIGTERMException:
            return None
        return {name: value.clone() for name, value in task.state_dict().items()}

    return fit


@pytest.fixture
def last(tmp_path):
    return tmp_path / "run/last.ckpt"


def test_after_a_validation_it_is_saved_with_the_next_whole_step(fit):
    options = {"accumulate_grad_batches": 2, "val_check_interval": 3}
    watch = Watch()
    fit(watch, **options, max_epochs=1, limit_train_batches=9)
    assert watch.validated == [3, 6, 9]
    assert watch.saved == [4, 6, 9]  # the last step of an epoch may have one batch


def test_what_ends_in_a_validation_has_no_gradient_pending(fit, last):
    options = {"accumulate_grad_batches": 2, "val_check_interval": 3}
    whole = fit(Watch(), **options)
    ended = Watch(3, is_in_validation=True)
    assert fit(ended, **options) is None
    assert (ended.validated, ended.saved) == ([3], [4, 4])
    assert torch.load(last, weights_only=True)["global_step"] == 2
    resumed = fit(Watch(), resume=last, **options)
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


@pytest.mark.parametrize(
    "options",
    [
        {"batch_tokens": 10_000, "check_val_every_n_epoch": 10},
        {"batch_tokens": 10_000, "limit_val_batches": 0},
        {"limit_train_batches": 1, "check_val_every_n_epoch": None, "val_check_interval": 10},
    ],
)
def test_epochs_of_one_batch_are_saved_and_can_end(fit, last, options):
    options = {"limit_train_batches": 1.0, **options, "max_epochs": 5}
    watch = Watch(4)
    assert fit(watch, {"every_n_train_steps": 2}, **options) is None
    assert [number for _, number, _ in watch.steps] == [0] * 4
    assert watch.saved == [2, 4, 4]
    assert torch.load(last, weights_only=True)["global_step"] == 4


@pytest.mark.parametrize(
    ("options", "saved"),
    [
        ({"check_val_every_n_epoch": 2}, [2, 4, 6, 8, 10, 12]),
        ({"val_check_interval": 3}, [2, 3, 4, 6, 7, 8, 10, 11, 12]),
        ({"limit_val_batches": 0}, [2, 4, 6, 8, 10, 12]),
    ],
)
def test_it_is_saved_at_the_end_of_an_epoch_that_is_not_validated(fit, options, saved):
    watch = Watch()
    fit(watch, {"every_n_train_steps": 2}, **options)
    assert watch.saved == saved


@pytest.mark.parametrize("batch", [5, 6])
def test_an_interval_over_epochs_loses_no_validation(fit, last, batch):
    options = {"check_val_every_n_epoch": None, "val_check_interval": 3}
    ended, resumed = Watch(batch), Watch()
    assert fit(ended, **options) is None
    assert fit(resumed, resume=last, **options)
    assert ended.steps[-1][0] + 1 == batch
    assert ended.validated + resumed.validated == [3, 6, 9, 12]


@pytest.mark.parametrize("length", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 9}])
@pytest.mark.parametrize(
    "options",
    [
        {"limit_val_batches": 0},
        {"check_val_every_n_epoch": 2},
        {"accumulate_grad_batches": 3, "check_val_every_n_epoch": None, "val_check_interval": 5},
        {"batch_tokens": 10_000, "limit_train_batches": 1.0, "check_val_every_n_epoch": 2},
    ],
)
def test_a_run_that_ends_with_an_epoch_and_again_in_the_next_goes_on_exactly(
    fit, last, options, length
):
    options = {**options, **length}
    expected = Watch()
    whole = fit(expected, **options)
    per_epoch = max(number for _, number, _ in expected.steps) + 1
    first, second, third = Watch(per_epoch), Watch(per_epoch + 1), Watch()
    assert fit(first, **options) is None
    assert len(first.steps) == per_epoch
    assert fit(second, resume=last, **options) is None
    resumed = fit(third, resume=last, **options)
    assert first.steps + second.steps + third.steps == expected.steps
    assert first.validated + second.validated + third.validated == expected.validated
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name
