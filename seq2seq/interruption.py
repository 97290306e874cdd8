"""Runs that are told to end save where they are."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What cluster schedulers send before they kill: SIGTERM, and SIGUSR1 where a job asks for it."""


class LastCheckpoint(ModelCheckpoint):
    """Keeps the newest state of a run, and ends the run with it where a signal asks for that.

    It is saved after every validation, and in between where ``every_n_train_steps`` or
    ``train_time_interval`` says so; always after a whole optimiser step, so that a run that goes on
    from it loses no gradient. After a validation between batches whose gradients are accumulated,
    it waits for their step. Other checkpoints do not: going on from a ``best.ckpt`` of such a
    validation, the step lacks the gradients before it.

    After SIGTERM or SIGUSR1, to one process or to all, the optimiser step that is running is
    finished, every rank learns of it, the checkpoint is saved, and ``SIGTERMException`` ends the
    training, from which ``seq2seq`` exits with status 143. Another signal in the meantime changes
    nothing. It takes the place of Lightning's handler of SIGTERM, which saves nothing.

    Args:
        **options: Of ``ModelCheckpoint``, without a metric to monitor.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._is_asked_to_end = False
        self._is_due = False
        self._step_at_start = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals; count the epoch that a resumed run begins."""
        super().on_train_start(trainer, pl_module)
        self._is_asked_to_end = False
        self._is_due = False
        _count_next_epoch(trainer)
        if threading.current_thread() is threading.main_thread():  # Python allows no other
            for number in SIGNALS:
                signal.signal(number, self._ask_to_end)  # Lightning puts back what there was

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember where the optimiser is."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._step_at_start = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save, where that is due, and end the run where it was asked to."""
        # A validation that is due now would be left out by a run that goes on from here.
        if self._has_pending_gradient(trainer) or _validation_follows(trainer):
            return
        if self._is_due:
            self._save(trainer)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._end_if_asked(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Save, and end the run where it was asked to, or leave both to the step under way."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self._has_pending_gradient(trainer):
            self._is_due = True
        else:
            self._save(trainer)
            self._end_if_asked(trainer)

    def _has_pending_gradient(self, trainer: pl.Trainer) -> bool:
        # No checkpoint has the gradients of batches whose optimiser step is still to come.
        return trainer.global_step == self._step_at_start

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self._path, weights_only=False)
        self._is_due = False

    @property
    def _path(self) -> Path:
        return Path(self.format_checkpoint_name({}))

    def _ask_to_end(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        # Nothing else: the signal may have come in the middle of anything.
        self._is_asked_to_end = True

    def _end_if_asked(self, trainer: pl.Trainer) -> None:
        # One rank may have been told alone, and none may save without the others.
        if not trainer.strategy.reduce_boolean_decision(self._is_asked_to_end, all=False):
            return
        self._save(trainer)
        rank_zero_info(f"Asked to end: saved {self._path} after step {trainer.global_step}.")
        raise SIGTERMException


def _validation_follows(trainer: pl.Trainer) -> bool:
    # Lightning's own answer is private. Another would have to know how five options of the trainer
    # divide an epoch, or all of the training, and whether another callback wants to stop.
    loop = trainer.fit_loop
    fetcher = loop._data_fetcher
    assert fetcher is not None
    return loop.epoch_loop._should_check_val_fx(fetcher)


def _count_next_epoch(trainer: pl.Trainer) -> None:
    # Going on after the last batch of an epoch, Lightning 2.6 does not count the next one as begun:
    # from a checkpoint within that, it would then go on as from the end of an epoch.
    loop = trainer.fit_loop
    epochs = loop.epoch_progress.current
    if loop.restarted_mid_epoch and epochs.ready == epochs.completed:
        loop.reset_restart_stage()
