"""How every task learns: its optimiser, and where its random choices come from."""

import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from seq2seq.decoders.forcing import teacher_forcing_ratio
from seq2seq.errors import ConfigError, raise_together
from seq2seq.optim import ParameterGroup, build_optimizer, trainer_problems
from seq2seq.schedules import build_schedules
from seq2seq.tasks.options import Optimization, TeacherForcing
from seq2seq.tasks.portable import PortableTask

_DROPOUT = 0x5DEECE66D  # keeps masks apart from other choices with the same seed


class LearningTask(PortableTask):
    """A task with an optimiser of its own, which reads its own outputs now and then as it learns.

    Args:
        optimization: Optimiser, learning rate and its schedule.
        teacher_forcing: How often the decoder reads the target while it learns.
        init_from: Checkpoint whose weights a new training starts from; None to start from scratch.

    Attributes:
        signatures: How the metrics of the last evaluation were computed, by their names; belongs
            beside every figure.
    """

    monitor: ClassVar[str]
    """The validation metric that says how good the task is."""

    monitor_mode: ClassVar[Literal["min", "max"]] = "max"
    """Whether the smallest or the greatest ``monitor`` is the best."""

    def __init__(
        self,
        *,
        optimization: Optimization,
        teacher_forcing: TeacherForcing,
        init_from: str | None = None,
    ) -> None:
        super().__init__(init_from)
        self.optimization = optimization
        self.teacher_forcing = teacher_forcing
        self.signatures: dict[str, str] = {}

    @abstractmethod
    def compute_metrics(self) -> Mapping[str, float | Tensor]:
        """Return the metrics of all that an evaluation added, by name, and forget it."""

    @abstractmethod
    def reset_metrics(self) -> None:
        """Forget all that was added to the metrics."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the parameters that learn at a rate of their own."""
        return []

    def forcing_ratio(self) -> float:
        """Return the present share of decoder inputs that come from the target, and log it."""
        forcing = self.teacher_forcing
        ratio = teacher_forcing_ratio(
            forcing.schedule,
            self.global_step,
            start=forcing.ratio,
            minimum=forcing.minimum,
            decay_steps=forcing.decay_steps,
        )
        if forcing.schedule != "constant":
            self.log("train/teacher_forcing_ratio", ratio)
        return ratio

    def mean_over_ranks(self, *sums: Tensor) -> tuple[Tensor, ...]:
        """Return the means of scalars over all ranks, without gradient.

        DDP averages gradients over ranks. So a summed loss is divided by the mean of what each rank
        counts: then all that they count weighs alike.
        """
        means = torch.stack([each.detach() for each in sums])
        if self.trainer.world_size > 1:
            # Lightning's `reduce` would first let all ranks wait for each other.
            torch.distributed.all_reduce(means)
            means = means / self.trainer.world_size
        return tuple(means)

    def on_train_start(self) -> None:
        """Let the loader of a resumed run go on where it was."""
        # Lightning 2.6 forgets to, where it made the loader before it read the checkpoint, to count
        # the steps of a schedule; this does nothing where it did.
        self.trainer.fit_loop._load_combined_loader_states()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Seed dropout, and whatever else draws from torch's own generators."""
        # With all of the training's randomness a function of where it is, none has to be saved.
        run_seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))  # --seed_everything
        torch.manual_seed(self._seed_here(run_seed, batch_idx) ^ _DROPOUT)

    def choice_seed(self, batch_number: int) -> int:
        """Return the seed of the random choices of a training batch."""
        return self._seed_here(self.teacher_forcing.seed, batch_number)

    def _seed_here(self, seed: int, batch_number: int) -> int:
        # A function of these four alone, so that a resumed run makes the same choices. The number
        # of the batch tells those apart whose gradients one step accumulates.
        key = seed * 1_000_003 + self.global_step
        key = (key * 1_000_003 + batch_number) * 8191 + self.global_rank
        return key % 2**63

    # Evaluation. One that breaks off leaves its part in the metrics, which is none of the next.

    def on_validation_epoch_start(self) -> None:
        """Begin the metrics anew."""
        self.reset_metrics()

    def on_test_epoch_start(self) -> None:
        """Begin the metrics anew."""
        self.reset_metrics()

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole validation set."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the whole test set."""
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        for name, value in self.compute_metrics().items():
            self.log(f"{stage}/{name}", value, prog_bar=f"{stage}/{name}" == self.monitor)

    # The optimiser.

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Load what a new training starts from; return the optimiser and its schedules.

        Raises:
            ConfigError: If the trainer does what the optimiser cannot.
        """
        # Here, as Lightning makes loaders next, which may compute features; and not in `setup`,
        # where it does not say yet whether it will restore a checkpoint.
        if self.trainer.ckpt_path is None:
            self.load_initial_weights()
        options, trainer = self.optimization, self.trainer
        trainer.fit_loop.setup_data()  # so that the number of batches is known
        problems = trainer_problems(
            options.optimizer,
            devices=trainer.world_size,
            precision=str(trainer.precision),
            accumulated_batches=trainer.accumulate_grad_batches,
            clips_gradients=bool(trainer.gradient_clip_val),
            batches_per_epoch=trainer.num_training_batches,
        )
        if isinstance(trainer.strategy, FSDPStrategy) and options.weight_decay > 0:
            problems.append(
                f"optimization.weight_decay={options.weight_decay} spares biases and norms, which "
                "cannot be told from matrices in the flat shards of FSDP. Set "
                "--model.optimization.weight_decay 0, or --trainer.strategy ddp."
            )
        raise_together(problems, ConfigError, "The optimiser cannot be used:")
        optimizer = build_optimizer(
            self,
            options.optimizer,
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
            betas=(options.beta1, options.beta2),
            momentum=options.momentum,
            lbfgs=options.lbfgs,
            groups=self.parameter_groups(),
        )
        schedules = build_schedules(
            optimizer,
            options.schedule,
            warmup_steps=options.warmup_steps,
            total_steps=trainer.estimated_stepping_batches,
            min_ratio=options.minimum_ratio,
            monitor=self.monitor,
            mode=self.monitor_mode,
            patience=options.plateau_patience,
            reduction=options.plateau_reduction,
            epochs_per_validation=trainer.check_val_every_n_epoch or 1,
        )
        return [optimizer], schedules  # type: ignore[return-value]  # Lightning's alias is narrower
