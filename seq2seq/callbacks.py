"""Callbacks every recipe runs with: decoded samples and speed."""

import time
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from seq2seq.batches import Batch, Prediction
from seq2seq.sequences import PAD_ID
from seq2seq.tasks.base import SequenceTask
from seq2seq.tasks.learning import LearningTask

Item = TypeVar("Item")


class Sample(NamedTuple):
    """A decoded validation example.

    Attributes:
        line: What is shown: the output and its reference.
        batch: The example alone, on the CPU.
    """

    line: str
    batch: Batch


class SampleLogger(Callback):
    """Shows a few decoded validation examples, on the terminal and in TensorBoard.

    They are the same ones every time: the first of the validation corpus, in its order, wherever
    the batches have them. TensorBoard also gets a figure of what each of them attended to. The
    signatures of the metrics are shown once per run, beside the first scores that they belong to.

    Args:
        samples: Number of examples; all of them where the corpus has fewer.
    """

    def __init__(self, samples: int = 4) -> None:
        self.samples = samples
        self._found: dict[int, Sample] = {}
        self._shown_signatures: dict[str, str] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin a run, which shows its signatures anew."""
        del trainer, pl_module, stage
        self._shown_signatures = {}

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the samples of the validation before."""
        del trainer, pl_module
        self._found = {}

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the samples that are in this batch: loaders sort by length, not as in the corpus."""
        del pl_module, batch_idx, dataloader_idx
        if trainer.sanity_checking or outputs is None:  # as of a task that decodes nothing
            return
        predictions: list[Prediction] = outputs
        for row, index in enumerate(batch.indices.tolist()):
            if index < self.samples:
                line = f"{predictions[row].text}   (reference: {batch.references[row][0]})"
                self._found[index] = Sample(line, batch.example(row))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the scores and the samples."""
        if trainer.sanity_checking:
            return
        samples = [sample for _, sample in sorted(_gather(trainer, self._found).items())]
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, LearningTask)
        scores = {
            name: value.item()
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/")
        }
        heading = "  ".join(f"{name} {value:.4g}" for name, value in scores.items())
        pl_module.print(f"\nepoch {trainer.current_epoch}, step {trainer.global_step}: {heading}")
        for sample in samples:
            pl_module.print(f"  {sample.line}")
        if samples:
            assert isinstance(pl_module, SequenceTask)
            _log_samples(trainer, pl_module, samples)
        self._show_signatures(trainer, pl_module, "val")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the signatures of the metrics below Lightning's table of them."""
        if trainer.is_global_zero:
            assert isinstance(pl_module, LearningTask)
            self._show_signatures(trainer, pl_module, "test")

    def _show_signatures(self, trainer: pl.Trainer, task: LearningTask, stage: str) -> None:
        if task.signatures == self._shown_signatures:
            return
        self._shown_signatures = task.signatures
        lines = [f"{stage}/{name}: {signature}" for name, signature in task.signatures.items()]
        for line in lines:
            task.print(f"  {line}")
        writer = tensorboard_writer(trainer)
        if writer is not None:
            writer.add_text(f"{stage}/signatures", "\n\n".join(lines), trainer.global_step)


class Throughput(Callback):
    """Logs how fast training is, and how much of its time it waits for data.

    ``train/tokens_per_second`` counts target tokens on all ranks together, where there are any.
    ``train/data_wait_share`` is the share of the time between the end of a step and the beginning
    of the next one, on this rank; a device that is still at work when its next step is given to it
    loses less. Several ranks are also told how unevenly their batches share the work.

    Args:
        window_steps: Number of batches that one figure covers.
    """

    def __init__(self, window_steps: int = 50) -> None:
        self.window_steps = window_steps
        self._tokens: Tensor | int = 0
        self._batches = 0
        self._working_seconds = 0.0
        self._waiting_seconds = 0.0
        self._started = 0.0
        self._ended: float | None = None  # None where what comes next is no wait for data

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how uneven the batches of the ranks are."""
        if trainer.world_size == 1 or not trainer.is_global_zero:
            return
        sampler = getattr(trainer.train_dataloader, "batch_sampler", None)
        imbalance = getattr(sampler, "imbalance", None)  # which this project's samplers know
        if imbalance is not None:
            pl_module.print(
                f"Of {trainer.world_size} processes, the one with most to do in a step has "
                f"{imbalance:.3f} times the mean of padded tokens."
            )

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let a step begin."""
        del trainer, pl_module, batch, batch_idx
        self._started = time.perf_counter()
        if self._ended is not None:
            self._waiting_seconds += self._started - self._ended

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count a batch, and log at the end of a window."""
        del outputs, batch_idx
        target = getattr(batch, "target", None)  # a series has no tokens
        if target is not None:
            self._tokens = self._tokens + (target != PAD_ID).sum()
        self._batches += 1
        is_over = self._batches == self.window_steps
        tokens = float(self._tokens) if is_over else 0.0  # waits for the device to finish
        self._ended = time.perf_counter()
        self._working_seconds += self._ended - self._started
        if not is_over:
            return
        seconds = self._working_seconds + self._waiting_seconds
        if tokens:
            pl_module.log("train/tokens_per_second", tokens * trainer.world_size / seconds)
        pl_module.log("train/data_wait_share", self._waiting_seconds / seconds)
        self._tokens, self._batches, self._ended = 0, 0, None
        self._working_seconds = self._waiting_seconds = 0.0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count no validation: an epoch may be shorter than a window, so one spans validations."""
        del trainer, pl_module
        self._ended = None


def _gather(trainer: pl.Trainer, share: dict[int, Item]) -> dict[int, Item]:
    """Return what all ranks have found, by its index; every rank must take part."""
    shares = [share]
    if trainer.world_size > 1:
        shares = [{} for _ in range(trainer.world_size)]
        torch.distributed.all_gather_object(shares, share)
    return {index: item for share in shares for index, item in share.items()}


def _log_samples(trainer: pl.Trainer, task: SequenceTask, samples: list[Sample]) -> None:
    writer = tensorboard_writer(trainer)
    if writer is None:
        return
    lines = "\n\n".join(sample.line for sample in samples)
    writer.add_text("val/samples", lines, trainer.global_step)
    if task.decoder.attention is None:
        return
    for place, sample in enumerate(samples):
        figure = _attention_figure(task, sample.batch)
        if figure is not None:
            writer.add_figure(f"val/attention/{place}", figure, trainer.global_step)


def _attention_figure(task: SequenceTask, batch: Batch) -> Figure | None:
    """Decode a batch of one again, this time keeping its attention."""
    options = replace(task.validation_decoding, return_attention=True)
    batch = task.transfer_batch_to_device(batch, task.device, 0)
    prediction = task.predict_batch(batch, options)[0][0]
    return task.figure(batch, prediction)


def tensorboard_writer(trainer: pl.Trainer) -> SummaryWriter | None:
    """Return what writes for TensorBoard; None where nothing does."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            writer: SummaryWriter = logger.experiment
            return writer
    return None
