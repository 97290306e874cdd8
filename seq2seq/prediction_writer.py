"""``seq2seq predict``: one file in the order of the input, and its finished rows until then."""

import heapq
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException
from numpy.typing import NDArray

from datamodules.base import SequenceDataModule
from seq2seq.batches import Batch, Prediction
from seq2seq.errors import ConfigError, DataError
from seq2seq.interruption import SIGNALS
from seq2seq.prediction_parts import KeptFolder, describe_file

_RESUME = "--predictions.resume true"
# A killed process loses nothing that it has written; a machine that dies, at most this much.
_SYNC_SECONDS = 30.0
# What rows depend on, but for options of the data that change none: after a run that was out of
# memory, another may go on with smaller batches.
_ROW_OPTIONS = ("model.", "data.", "trainer.precision")
_FREE_OPTIONS = ("data.batch_size", "data.eval_batch_size", "data.num_workers")


class Row(NamedTuple):
    """A finished prediction.

    Attributes:
        place: In the input, from 0.
        text: The best prediction.
    """

    place: int
    text: str


class RowFolder(KeptFolder):
    """The folder of ``seq2seq predict``, with a file of rows for each process of each run.

    Args:
        output: The file that the rows are for.
    """

    def __init__(self, output: Path) -> None:
        super().__init__(str(output), _RESUME)
        self._output = output

    def add(self, rank: int) -> IO[str]:
        """Return a new file for the rows of a process.

        Raises:
            DataError: If it cannot be made.
        """
        try:
            # What a killed process has left may end in the middle of a row: nothing is added to it.
            return tempfile.NamedTemporaryFile(  # closed when prediction ends
                "w", dir=self.path, prefix=f"rank{rank}-", suffix=".jsonl", delete=False
            )
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written to: {error.strerror}.") from error

    def read(self) -> Iterator[Row]:
        """Yield all finished rows, in the order of the input.

        Raises:
            DataError: If a file is damaged.
        """
        # Every process works in the order of the input.
        return heapq.merge(*map(self._read_rows, self._files()))

    def has_rows(self) -> bool:
        """Return whether anything is finished."""
        return any(path.stat().st_size for path in self._files())

    def finish(self, rows: int) -> None:
        """Put the rows together to the whole output, and delete the folder.

        Args:
            rows: How many there must be.

        Raises:
            DataError: If some are missing, a file is damaged, or the output cannot be written.
        """
        whole = self.path / "whole"
        found = 0
        try:
            with whole.open("w", encoding="utf-8") as file:
                for row in self.read():
                    file.write(f"{row.text}\n")
                    found += 1
                file.flush()
                os.fsync(file.fileno())
            if found != rows:
                raise DataError(
                    f"{self.path}: has {found} of {rows} predictions. Set --predictions.path to a "
                    f"folder that all processes share, delete {self.path}, and begin anew."
                )
            whole.replace(self._output)
        except OSError as error:
            raise DataError(
                f"{self._output}: cannot be put together: {error.strerror}. Run the same command "
                f"with {_RESUME} when it can."
            ) from error
        shutil.rmtree(self.path)

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("*.jsonl"))

    def _read_rows(self, path: Path) -> Iterator[Row]:
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return  # killed while it was written
                try:
                    yield Row(**json.loads(line))
                except (TypeError, ValueError) as error:
                    raise self.damage(path, path) from error


class PredictionWriter(Callback):
    """Writes what ``seq2seq predict`` decodes, one line per line of input, in its order.

    While it decodes, every process keeps its finished predictions in the folder ``PATH.parts``,
    from which the file is made in the end. Where the run has ended before that, ``resume`` goes on
    with those: with any number of processes, and other sizes of batches.

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
        self._is_asked_to_end = False

    def check(self, trainer: pl.Trainer) -> None:
        """Refuse, before anything is loaded, what ``setup`` would refuse.

        Raises:
            ConfigError: If the path is a folder, if parts are there and ``resume`` is not set, or
                if they were made with other options.
            DataError: If the folder of the parts holds something else.
        """
        self._find_folder(trainer).check(self.options, self.resume)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the folder for what is finished, or leave out what is there.

        Raises:
            ConfigError: As ``check``; or if the data cannot leave anything out.
            DataError: If nothing can be written, or what is there is damaged.
        """
        if stage != "predict":
            return
        # Where there are fewer inputs than ranks, some have nothing to predict.
        pl_module.allow_zero_length_dataloader_with_multiple_devices = True
        folder = self._find_folder(trainer)
        predicted = np.empty(0, dtype=np.int64)
        problem: ValueError | None = None
        if trainer.is_global_zero:
            try:
                predicted = self._begin(folder)
            except (ConfigError, DataError) as error:
                problem = error
        # No rank waits for one that has failed, and all share out the same inputs.
        problem, predicted = trainer.strategy.broadcast((problem, predicted))
        if problem is not None:
            raise problem
        _leave_out(trainer, predicted)
        if len(predicted):
            pl_module.print(f"{len(predicted)} finished predictions are taken from {folder.path}")
        self._folder = folder
        self._rows = len(predicted) if trainer.is_global_zero else 0
        self._synced = time.monotonic()

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals that end a run: Lightning's handler waits for the other ranks."""
        del trainer, pl_module
        self._is_asked_to_end = False
        if threading.current_thread() is threading.main_thread():  # Python allows no other
            for number in SIGNALS:
                signal.signal(number, self._ask_to_end)  # Lightning puts back what there was

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the best prediction of each row, and end the run where it was asked to."""
        del pl_module, batch_idx, dataloader_idx
        rows: list[list[Prediction]] = outputs
        assert self._folder is not None
        if self._file is None:
            self._file = self._folder.add(trainer.global_rank)
        try:
            for place, predictions in zip(batch.indices.tolist(), rows, strict=True):
                json.dump(Row(place, predictions[0].text)._asdict(), self._file)  # in ASCII
                self._file.write("\n")
            self._file.flush()
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise DataError(f"{self._file.name}: cannot be written: {error.strerror}.") from error
        self._rows += len(rows)
        if self._is_asked_to_end:
            raise SIGTERMException

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Wait for all ranks, and make the file of their rows.

        Raises:
            DataError: If rows are missing, or the file cannot be written.
        """
        # Not when prediction ends: Lightning 2.6 does not say so to a rank that had nothing to do.
        if stage != "predict" or self._folder is None:
            return
        self._close()
        counts = [self._rows]
        if trainer.world_size > 1:
            counts = [0] * trainer.world_size
            torch.distributed.all_gather_object(counts, self._rows)
        if trainer.is_global_zero:
            rows = sum(counts)
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
                f"What is finished is kept in {self._folder.path}: add {_RESUME} to the same "
                "command to go on from there, or delete the folder to begin anew."
            )
        self._folder = None

    def _find_output(self, trainer: pl.Trainer) -> Path:
        return Path(self.path or Path(trainer.default_root_dir) / "predictions.txt")

    def _find_folder(self, trainer: pl.Trainer) -> RowFolder:
        output = self._find_output(trainer)
        if output.is_dir():
            raise ConfigError(f"--predictions.path {output} is a folder: give it a file's name.")
        return RowFolder(output)

    def _begin(self, folder: RowFolder) -> NDArray[np.int64]:
        """Return the places in the input that are finished."""
        parent = folder.path.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{parent}: cannot be made: {error.strerror}.") from error
        folder.make(self.options, self.resume)
        return np.fromiter((row.place for row in folder.read()), dtype=np.int64)

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


def describe_options(config: Namespace, checkpoint: str) -> dict[str, Any]:
    """Return what predictions depend on, by the names that a command line has for it.

    Args:
        config: That of ``seq2seq predict``.
        checkpoint: The file of the model.
    """
    options = {
        name.replace(".init_args", "").removesuffix(".class_path"): value
        for name, value in vars(config.as_flat()).items()
        if name.startswith(_ROW_OPTIONS)
    }
    described = {name: value for name, value in options.items() if name not in _FREE_OPTIONS}
    for name, value in described.items():
        if isinstance(value, str) and _is_file(value):
            described[name] = describe_file(value)  # it may change between two runs
    described["ckpt_path"] = describe_file(checkpoint)
    stored: dict[str, Any] = json.loads(json.dumps(described, default=str))
    return stored


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero byte
        return False


def _leave_out(trainer: pl.Trainer, predicted: NDArray[np.int64]) -> None:
    data = getattr(trainer, "datamodule", None)  # absent where loaders were given instead
    if isinstance(data, SequenceDataModule):
        data.predicted = predicted
    elif len(predicted):
        raise ConfigError(
            f"{_RESUME}: only the data modules of this project can leave out what is finished. "
            "Delete the folder of the parts to begin anew."
        )
