"""``seq2seq predict``: one file in the order of the input, and its finished rows until then."""

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException
from numpy.typing import NDArray

from datamodules.base import SequenceDataModule
from seq2seq.batches import Batch, Prediction
from seq2seq.errors import ConfigError, DataError, printable
from seq2seq.interruption import SIGNALS
from seq2seq.prediction_folder import RESUME, Row, RowFolder, write_row

# A killed process loses nothing that it has written; a machine that dies, at most this much.
_SYNC_SECONDS = 30.0
_LOOK_SECONDS = 0.1  # between two looks at whether all ranks are done
_LINE_ENDS = dict.fromkeys(map(ord, "\r\n"), " ")

_log = logging.getLogger(__name__)


class PredictionWriter(Callback):
    """Writes what ``seq2seq predict`` decodes, one line per line of input, in its order.

    While it decodes, every process keeps its finished predictions in the folder ``PATH.parts``,
    from which the file is made in the end. Where the run has ended before that, ``resume`` goes on
    with those: with any number of processes, and other sizes of batches.

    An input that could not be used has the line ``[error: REASON]``, and there is a warning.

    Args:
        path: File to write; ``predictions.txt`` in the run's folder when None.
        resume: Whether to go on where a run with the same ``path`` was interrupted, if one was.

    Attributes:
        options: What predictions depend on, by name: a run goes on only where they are the same.
            ``seq2seq predict`` sets it.
    """

    def __init__(self, path: str | None = None, resume: bool = False) -> None:
        self.path = path
        self.resume = resume
        self.options: dict[str, Any] = {}
        self._folder: RowFolder | None = None  # while predicting
        self._file: IO[str] | None = None  # from this process's first row on
        self._rows = 0  # finished before, and by this process
        self._synced = 0.0
        self._starter: int | None = None  # the process that has started this one, if a rank has
        self._is_asked_to_end = False

    def check(self, trainer: pl.Trainer) -> None:
        """Refuse, before anything is loaded, what ``setup`` would refuse.

        Raises:
            ConfigError: If the path is no file, if parts are there and ``resume`` is not set, or
                if they were made with other options.
            DataError: If the folder of the parts holds something else.
        """
        self._find_folder(trainer).check(self.options, self.resume)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the folder for what is finished, or leave out what is there.

        Raises:
            ConfigError: As ``check``; or if they were made of other inputs, or the data cannot
                leave anything out.
            DataError: If nothing can be written, or what is there is damaged.
            OSError: If what is there cannot be reached.
        """
        if stage != "predict":
            return
        # Where there are fewer inputs than ranks, some have nothing to predict.
        pl_module.allow_zero_length_dataloader_with_multiple_devices = True
        folder = self._find_folder(trainer)
        predicted = np.empty(0, dtype=np.int64)
        problem: Exception | None = None
        if trainer.is_global_zero:
            try:
                predicted = folder.begin(self.options, _find_inputs(trainer), self.resume)
            except (ConfigError, DataError, OSError) as error:
                problem = error
        # No rank waits for one that has failed, and all share out the same inputs.
        problem, predicted, first = trainer.strategy.broadcast((problem, predicted, os.getpid()))
        if problem is not None:
            raise problem
        # What else starts ranks, such as torchrun, sees to their end itself.
        self._starter = first if os.getppid() == first else None
        self._is_asked_to_end = False
        _leave_out(trainer, predicted)
        if len(predicted):
            pl_module.print(f"{len(predicted)} finished predictions are taken from {folder.path}")
        self._folder = folder
        self._rows = len(predicted) if trainer.is_global_zero else 0
        self._synced = time.monotonic()

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals that end a run: Lightning's handler waits for the other ranks."""
        del trainer, pl_module
        self._take_signals()  # Lightning puts back what there was

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the best prediction of each row, and end the run where it is to end."""
        del pl_module, batch_idx, dataloader_idx
        rows: list[list[Prediction]] = outputs
        assert self._folder is not None
        if self._file is None:
            self._file = self._folder.add(trainer.global_rank)
        try:
            for place, predictions in zip(batch.indices.tolist(), rows, strict=True):
                write_row(self._file, Row(place, _line_of(predictions[0])))
            self._file.flush()
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise DataError(f"{self._file.name}: cannot be written: {error.strerror}.") from error
        self._rows += len(rows)
        if self._is_to_end():
            raise SIGTERMException

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Wait for all ranks, and make the file of their rows.

        Raises:
            DataError: If rows are missing, or the file cannot be written.
            SIGTERMException: If the run was asked to end, and another rank has rows to decode.
        """
        # Not when prediction ends: Lightning 2.6 does not say so to a rank that had nothing to do.
        if stage != "predict" or self._folder is None:
            return
        self._close()
        with self._own_signals():  # Lightning has put back what there was
            rows = self._count_all(trainer)
            if trainer.is_global_zero:
                self._folder.finish(rows)
                pl_module.print(f"{rows} predictions written to {self._find_output(trainer)}")
        self._folder = None

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """End the processes that this one has started, and say how to go on."""
        del pl_module, exception
        if self._folder is None:
            return
        launcher = trainer.strategy.launcher
        if launcher is not None:
            launcher.kill(signal.SIGTERM)  # otherwise they would finish their shares, and wait
        with suppress(DataError):  # which is the exception, or less important
            self._close()
        if trainer.world_size == 1 and not self._folder.has_rows():
            shutil.rmtree(self._folder.path)
        else:
            rank_zero_info(
                f"What is finished is kept in {self._folder.path}: add {RESUME} to the same "
                "command to go on from there, or delete the folder to begin anew."
            )
        self._folder = None

    def _find_output(self, trainer: pl.Trainer) -> Path:
        return Path(self.path or Path(trainer.default_root_dir) / "predictions.txt")

    def _find_folder(self, trainer: pl.Trainer) -> RowFolder:
        output = self._find_output(trainer)
        if output.is_dir():
            raise ConfigError(f"--predictions.path {output} is a folder: give it a file's name.")
        if output.exists() and not output.is_file():
            raise ConfigError(
                f"--predictions.path {output} is not a file: the output is put together in the "
                "end, from parts that are kept beside it. Set it to a file."
            )
        # What a link leads to is written, and the link stays.
        return RowFolder(output.resolve() if output.is_symlink() else output)

    def _count_all(self, trainer: pl.Trainer) -> int:
        """Wait for all ranks, and return how many rows they have together."""
        if trainer.world_size == 1:
            return self._rows
        rows = torch.tensor(self._rows, device=trainer.strategy.root_device)
        # In a call that waits itself, no signal would be heard.
        work = torch.distributed.all_reduce(rows, async_op=True)
        while not work.is_completed():
            if self._is_to_end():
                raise SIGTERMException
            time.sleep(_LOOK_SECONDS)
        work.wait()
        return int(rows)

    def _is_to_end(self) -> bool:
        """Return whether the run was asked to end, or the rank that has started this one is gone.

        Without that rank, nobody else would end this one.
        """
        is_left_alone = self._starter is not None and os.getppid() != self._starter
        return self._is_asked_to_end or is_left_alone

    @contextmanager
    def _own_signals(self) -> Iterator[None]:
        """Hear the signals that end a run; afterwards, put back what there was."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self._take_signals()
        try:
            yield
        finally:
            if _may_take_signals():
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _take_signals(self) -> None:
        if _may_take_signals():
            for number in SIGNALS:
                signal.signal(number, self._ask_to_end)

    def _ask_to_end(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        # Nothing else: the signal may have come in the middle of anything.
        self._is_asked_to_end = True

    def _close(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.close()
        except OSError as error:
            raise DataError(f"{file.name}: cannot be written: {error.strerror}.") from error


def _may_take_signals() -> bool:
    return threading.current_thread() is threading.main_thread()  # Python allows no other


def _line_of(prediction: Prediction) -> str:
    """Return what is written of a prediction; warn where there is none."""
    error = prediction.error
    if error is None:
        return prediction.text
    line = printable(error.translate(_LINE_ENDS))
    _log.warning("No prediction: %s", line)
    return f"[error: {line}]"


def _find_inputs(trainer: pl.Trainer) -> Sequence[Path]:
    data = getattr(trainer, "datamodule", None)  # absent where loaders were given instead
    return data.prediction_files() if isinstance(data, SequenceDataModule) else ()


def _leave_out(trainer: pl.Trainer, predicted: NDArray[np.int64]) -> None:
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, SequenceDataModule):
        data.predicted = predicted
    elif len(predicted):
        raise ConfigError(
            f"{RESUME}: only the data modules of this project can leave out what is finished. "
            "Delete the folder of the parts to begin anew."
        )
