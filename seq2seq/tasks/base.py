"""What every task shares: teacher forcing, decoding, optimisation and the checkpoint format."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any, ClassVar, Literal, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from seq2seq.batches import Batch, Memory
from seq2seq.decoders.base import DecodingState
from seq2seq.decoders.forcing import decode_target, teacher_forcing_ratio
from seq2seq.decoders.recurrent import RecurrentDecoder
from seq2seq.errors import CheckpointError, ConfigError
from seq2seq.losses import SequenceLoss, sequence_cross_entropy
from seq2seq.optim import build_optimizer, build_schedules
from seq2seq.search import Hypothesis, SearchOptions, StepResult, search
from seq2seq.tasks.options import Optimization, TeacherForcing
from seq2seq.tokenizer import SubwordTokenizer

CHECKPOINT_KEY = "seq2seq"
NOT_SAVED = (
    "label_smoothing",
    "optimization",
    "teacher_forcing",
    "decoding",
    "validation_beam_size",
)
"""Arguments kept out of a checkpoint: Lightning lets a checkpoint's hyperparameters override the
command line, and these are the user's to choose anew in every run."""


class Prediction(NamedTuple):
    """One decoded output.

    Attributes:
        text: What the user reads.
        score: Length-normalised log-probability.
        tokens: Target tokens, with the end of sequence where the search reached it.
        token_log_probs: Log-probability of each token.
        attention: Weights ``(tokens, source)``; None unless asked for.
        source_tokens: What the columns of ``attention`` stand for.
    """

    text: str
    score: float
    tokens: list[str]
    token_log_probs: list[float]
    attention: Tensor | None = None
    source_tokens: list[str] | None = None


NOTHING = Prediction(text="", score=0.0, tokens=[], token_log_probs=[])
"""What is predicted for an empty input, without asking the model."""


class SequenceTask(pl.LightningModule, ABC):
    """An encoder, a decoder, and how they learn and are used.

    A subclass builds ``encoder`` and ``decoder`` from flat hyperparameters, so that a checkpoint
    rebuilds it without the YAML file, and says how raw inputs become a batch and hypotheses a
    prediction.

    Args:
        label_smoothing: Share of the target probability spread over the whole vocabulary.
        optimization: Optimiser, learning rate and its schedule.
        teacher_forcing: How often the decoder reads the target while it learns.
        decoding: Search in testing and prediction.
        validation_beam_size: Beam size in validation; 1 is greedy search.

    Attributes:
        tokenizers: By their role, from the data module or the checkpoint.
        signatures: How the metrics of the last evaluation were computed, by their names; belongs
            beside every figure.
    """

    monitor: ClassVar[str]
    """The validation metric that says how good the task is, the greater the better."""

    encoder: nn.Module
    decoder: RecurrentDecoder

    def __init__(
        self,
        *,
        label_smoothing: float,
        optimization: Optimization,
        teacher_forcing: TeacherForcing,
        decoding: SearchOptions,
        validation_beam_size: int,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.optimization = optimization
        self.teacher_forcing = teacher_forcing
        self.decoding = decoding
        self.validation_decoding = replace(
            decoding, method="beam", beam_size=validation_beam_size, n_best=1
        )
        self.tokenizers: dict[str, SubwordTokenizer] = {}
        self.signatures: dict[str, str] = {}

    # What a subclass says.

    @abstractmethod
    def expected_vocab_sizes(self) -> dict[str, int]:
        """Return the size that each tokenizer must have, by its role."""

    @abstractmethod
    def collate(self, items: Sequence[Any]) -> Batch:
        """Turn raw inputs (texts, paths of pictures, ...) into a batch without targets."""

    @abstractmethod
    def present(self, batch: Batch, row: int, hypothesis: Hypothesis) -> Prediction:
        """Turn a hypothesis for one row of a batch into what the user reads."""

    @abstractmethod
    def update_metrics(self, batch: Batch, predictions: list[Prediction]) -> None:
        """Add the decoded batch to the metrics of the running validation or test."""

    @abstractmethod
    def compute_metrics(self) -> dict[str, float]:
        """Return the metrics of all that was added, forget it, and set ``signatures``."""

    def max_lengths(self, batch: Batch) -> Tensor | None:  # noqa: ARG002  # for subclasses
        """Return how long each output may get, int64 ``(batch,)``; None without a limit."""
        return None

    # Training.

    def compute_loss(
        self, batch: Batch, forcing_ratio: float = 1.0, batch_number: int = 0
    ) -> SequenceLoss:
        """Run the decoder along the target of a batch.

        Args:
            batch: Inputs and targets.
            forcing_ratio: Share of decoder inputs that come from the target.
            batch_number: What tells the random choices of batches of one optimiser step apart.
        """
        assert batch.target is not None
        generator = None
        if forcing_ratio < 1:
            generator = torch.Generator(self.device).manual_seed(self._forcing_seed(batch_number))
        output = decode_target(
            self.decoder,
            batch.target,
            self.encoder(batch.inputs),
            ratio=forcing_ratio,
            method=self.teacher_forcing.method,
            generator=generator,
        )
        layer = self.decoder.output_layer
        assert isinstance(layer, nn.Linear)
        return sequence_cross_entropy(layer, output.features, batch.target, self.label_smoothing)

    def training_step(self, batch: Batch, batch_number: int) -> Tensor:
        """Return the batch's mean loss per real target token, over all ranks.

        With ``accumulate_grad_batches`` Lightning averages these means: a token then weighs less
        in a batch that has more of them.
        """
        forcing = self.teacher_forcing
        ratio = teacher_forcing_ratio(
            forcing.schedule,
            self.global_step,
            start=forcing.ratio,
            minimum=forcing.minimum,
            decay_steps=forcing.decay_steps,
        )
        loss = self.compute_loss(batch, ratio, batch_number)
        tokens = loss.tokens.to(loss.total.dtype)
        self.log("train/loss", loss.negative_log_likelihood / tokens, prog_bar=True)
        if forcing.schedule != "constant":
            self.log("train/teacher_forcing_ratio", ratio)
        # DDP averages gradients over ranks; dividing by their mean count weighs all tokens alike.
        if self.trainer.world_size > 1:
            tokens = self.trainer.strategy.reduce(tokens, reduce_op="mean")
        return loss.total / tokens

    def _forcing_seed(self, batch_number: int) -> int:
        # A function of these four alone, so that a resumed run makes the same choices. The number
        # of the batch tells those apart whose gradients one step accumulates.
        key = self.teacher_forcing.seed * 1_000_003 + self.global_step
        key = (key * 1_000_003 + batch_number) * 8191 + self.global_rank
        return key % 2**63

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser and its schedules."""
        options = self.optimization
        optimizer = build_optimizer(
            self,
            options.optimizer,
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
            betas=(options.beta1, options.beta2),
            momentum=options.momentum,
        )
        schedules = build_schedules(
            optimizer,
            options.schedule,
            warmup_steps=options.warmup_steps,
            total_steps=self.trainer.estimated_stepping_batches,
            min_ratio=options.minimum_ratio,
            monitor=self.monitor,
            mode="max",
            patience=options.plateau_patience,
            reduction=options.plateau_reduction,
            epochs_per_validation=self.trainer.check_val_every_n_epoch or 1,
        )
        return [optimizer], schedules  # type: ignore[return-value]  # Lightning's alias is narrower

    # Evaluation: always by decoding.

    # Lightning hands on to callbacks whatever these return; its types know tensors only.

    def validation_step(self, batch: Batch, *_: int) -> list[Prediction]:  # type: ignore[override]
        """Decode a batch, add it to the metrics and return it for whoever shows samples."""
        return self._evaluate(batch, "val", self.validation_decoding)

    def test_step(self, batch: Batch, *_: int) -> list[Prediction]:  # type: ignore[override]
        """Decode a batch with the options of testing and add it to the metrics."""
        return self._evaluate(batch, "test", self.decoding)

    def predict_step(self, batch: Batch, _batch_number: int) -> list[list[Prediction]]:
        """Decode a batch; the best ``n_best`` predictions per row."""
        return self.predict_batch(batch, self.decoding)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole validation set."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the whole test set."""
        self._log_metrics("test")

    def _evaluate(
        self, batch: Batch, stage: Literal["val", "test"], options: SearchOptions
    ) -> list[Prediction]:
        loss = self.compute_loss(batch)
        mean = loss.negative_log_likelihood / loss.tokens
        # Lightning weighs by batch_size, here tokens: the logged mean is the corpus's own.
        self.log(f"{stage}/loss", mean, batch_size=int(loss.tokens), sync_dist=True)
        predictions = [best for best, *_ in self.predict_batch(batch, options)]
        self.update_metrics(batch, predictions)
        return predictions

    def _log_metrics(self, stage: str) -> None:
        for name, value in self.compute_metrics().items():
            self.log(f"{stage}/{name}", value, prog_bar=f"{stage}/{name}" == self.monitor)

    # Decoding.

    @torch.inference_mode()
    def decode(self, batch: Batch, options: SearchOptions) -> list[list[Hypothesis]]:
        """Search for the outputs of a batch.

        Returns:
            For each row its hypotheses, best first, at least one and at most ``n_best``.
        """
        memory: Memory = self.decoder.prepare(self.encoder(batch.inputs))

        def step(tokens: Tensor, state: DecodingState) -> StepResult[DecodingState]:
            output = self.decoder.step(tokens, state.decoder, state.memory)
            return StepResult(
                output.scores, output.attention, DecodingState(output.state, state.memory)
            )

        return search(
            step,
            DecodingState(self.decoder.init_state(memory), memory),
            len(memory.mask),
            options,
            max_lengths=self.max_lengths(batch),
            indices=batch.indices,
            device=self.device,
        )

    def predict_batch(self, batch: Batch, options: SearchOptions) -> list[list[Prediction]]:
        """Decode a batch into what the user reads; per row the best first."""
        return [
            [self.present(batch, row, hypothesis) for hypothesis in hypotheses]
            for row, hypotheses in enumerate(self.decode(batch, options))
        ]

    # The tokenizer travels from the data into the task, and with it into the checkpoint.

    def setup(self, stage: str) -> None:
        """Take over the tokenizers of the data module.

        Raises:
            ConfigError: If a tokenizer has another size than the model.
        """
        del stage
        tokenizers = getattr(getattr(self.trainer, "datamodule", None), "tokenizers", None)
        if tokenizers is None:
            return
        for role, size in self.expected_vocab_sizes().items():
            if tokenizers[role].vocab_size != size:
                raise ConfigError(
                    f"The {role} tokenizer has {tokenizers[role].vocab_size} pieces, the model "
                    f"expects {size}. Set --data.vocab_size or --data.source_vocab_size to the "
                    "tokenizer's size; the model takes it from there."
                )
        self.tokenizers = dict(tokenizers)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put in what a checkpoint needs to be used alone; plain types and tensors only."""
        checkpoint[CHECKPOINT_KEY] = {
            "version": version("seq2seq-lightning"),
            "task": type(self).__name__,
            "tokenizers": {role: item.to_tensor() for role, item in self.tokenizers.items()},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the tokenizers out of a checkpoint.

        Raises:
            CheckpointError: If it is of another task or project, or the data module brings another
                tokenizer than the checkpoint's.
        """
        own = checkpoint.get(CHECKPOINT_KEY, {"task": "of another project"})
        if own["task"] != type(self).__name__:
            raise CheckpointError(
                f"The checkpoint is not one of the task {type(self).__name__}, but {own['task']}. "
                "Give --ckpt_path one that this task wrote, or choose the other task as --model."
            )
        saved = own["tokenizers"]
        loaded = {role: SubwordTokenizer.from_tensor(tensor) for role, tensor in saved.items()}
        for role, tokenizer in loaded.items():
            present = self.tokenizers.get(role, tokenizer)
            if present.fingerprint != tokenizer.fingerprint:
                raise CheckpointError(
                    f"The checkpoint was trained with another {role} tokenizer than the data "
                    "module's, so its ids mean other words. Use the training data and options it "
                    "was trained with, or start a new run without --ckpt_path."
                )
        self.tokenizers = loaded
