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
    ``train_time_interval`` says so; always after a whole optimiser step.

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
        self._step_at_start = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals."""
        super().on_train_start(trainer, pl_module)
        self._is_asked_to_end = False
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
        # Between two batches whose gradients are accumulated, a checkpoint would lose the first's.
        if trainer.global_step == self._step_at_start:
            return
        # A validation that is due now would be left out by a run that goes on from here.
        if not _validation_follows(trainer, batch_idx):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            self._end_if_asked(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Save, and end the run where it was asked to."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            trainer.save_checkpoint(self._path, weights_only=False)
            self._end_if_asked(trainer)

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
        trainer.save_checkpoint(self._path, weights_only=False)
        rank_zero_info(f"Asked to end: saved {self._path} after step {trainer.global_step}.")
        raise SIGTERMException


def _validation_follows(trainer: pl.Trainer, batch_number: int) -> bool:
    if trainer.is_last_batch:
        return True
    interval = trainer.val_check_batch
    return isinstance(interval, int) and interval > 0 and (batch_number + 1) % interval == 0
