"""Options of training, grouped; none of them is needed to use a checkpoint, so none is saved."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from seq2seq.decoders.forcing import ForcingMethod, ForcingSchedule
from seq2seq.errors import ConfigError, raise_together
from seq2seq.optim import (
    LBFGSOptions,
    LineSearch,
    OptimizerName,
    optimizer_problems,
)
from seq2seq.schedules import ScheduleName, schedule_problems


@dataclass(frozen=True)
class Optimization:
    """How the weights are found.

    Args:
        optimizer: ``adam``, ``adamw``, ``sgd`` or ``lbfgs``, which is for small models, one device
            and all of the training data in one batch.
        learning_rate: Step size after the warm-up.
        weight_decay: Coefficient of the decay; spares biases, norms and embeddings.
        beta1: Decay rate of Adam's first moment.
        beta2: Decay rate of Adam's second moment.
        momentum: Momentum of ``sgd``.
        max_iterations: Iterations of ``lbfgs`` in one optimiser step.
        history_size: Iterations whose curvature ``lbfgs`` remembers.
        line_search: ``strong_wolfe`` lets ``lbfgs`` find a step length that lowers the loss, around
            the learning rate; with ``none`` that is the length.
        schedule: ``constant``, ``cosine`` (to ``minimum_ratio`` at the last step),
            ``inverse_sqrt`` or ``plateau`` (of the task's validation metric).
        warmup_steps: Length of the linear warm-up, in optimiser steps.
        minimum_ratio: Lowest rate of ``cosine`` and ``plateau``, as a share of the full rate.
        plateau_patience: Validations without improvement that ``plateau`` puts up with.
        plateau_reduction: Factor by which ``plateau`` lowers the rate.

    Raises:
        ConfigError: If an option is unknown or out of range; all problems together. What depends
            on the length of the training is told when it begins.
    """

    optimizer: OptimizerName = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.98
    momentum: float = 0.0
    max_iterations: int = 20
    history_size: int = 20
    line_search: LineSearch = "strong_wolfe"
    schedule: ScheduleName = "constant"
    warmup_steps: int = 0
    minimum_ratio: float = 0.0
    plateau_patience: int = 3
    plateau_reduction: float = 0.5

    def __post_init__(self) -> None:
        problems = [
            *optimizer_problems(
                self.optimizer,
                learning_rate=self.learning_rate,
                weight_decay=self.weight_decay,
                betas=(self.beta1, self.beta2),
                momentum=self.momentum,
                lbfgs=self.lbfgs,
            ),
            *schedule_problems(
                self.schedule,
                warmup_steps=self.warmup_steps,
                min_ratio=self.minimum_ratio,
                patience=self.plateau_patience,
                reduction=self.plateau_reduction,
            ),
        ]
        raise_together(problems, ConfigError, "The optimisation cannot be set up:")

    @property
    def lbfgs(self) -> LBFGSOptions:
        """What ``lbfgs`` alone understands."""
        return LBFGSOptions(self.max_iterations, self.history_size, self.line_search)


@dataclass(frozen=True)
class TeacherForcing:
    """How often the decoder reads the target while it learns, and how that changes.

    Args:
        schedule: ``constant``, ``linear``, ``exponential`` or ``inverse_sigmoid``.
        ratio: Share of inputs that come from the target, before any decay; 1 is teacher forcing.
        minimum: Ratio below which no schedule falls.
        decay_steps: How slowly the ratio falls, in optimiser steps.
        method: ``parallel`` (two whole-sequence passes) or ``step`` (exact, token by token).
        seed: Seed of the choices, which also depend on the rank, the step and the batch.

    Raises:
        ConfigError: If a number is out of range; all problems together.
    """

    schedule: ForcingSchedule = "constant"
    ratio: float = 1.0
    minimum: float = 0.0
    decay_steps: float = 1000.0
    method: ForcingMethod = "parallel"
    seed: int = 1

    def __post_init__(self) -> None:
        problems = [
            f"teacher_forcing.{name}={value} must lie between 0 and 1."
            for name, value in (("ratio", self.ratio), ("minimum", self.minimum))
            if not 0 <= value <= 1
        ]
        if self.decay_steps <= 0:
            problems.append(f"teacher_forcing.decay_steps={self.decay_steps} must be positive.")
        raise_together(problems, ConfigError, "Teacher forcing cannot be set up:")

    @property
    def is_sampling(self) -> bool:
        """Whether the decoder reads outputs of its own."""
        return self.ratio < 1 or self.schedule != "constant"

    @property
    def is_sampling_by_step(self) -> bool:
        """Whether the decoder reads samples of its own, and so runs one step at a time."""
        return self.method == "step" and self.is_sampling


def range_problems(counts: dict[str, int], shares: dict[str, float]) -> list[str]:
    """Return what is wrong with options of ``--model`` that count something, or are a share."""
    return [
        *(
            f"--model.{name}={value} must be at least 1."
            for name, value in counts.items()
            if value < 1
        ),
        *(
            f"--model.{name}={value} must be at least 0 and less than 1."
            for name, value in shares.items()
            if not 0 <= value < 1
        ),
    ]


def statistics_problems(statistics: Mapping[str, list[float] | None], channels: int) -> list[str]:
    """Return what is wrong with means and standard deviations of pictures, one sentence each.

    Args:
        statistics: Of options that have a value for each channel, the name and the values; a name
            that ends in ``std`` is that of deviations.
        channels: Channels of the pictures.
    """
    problems = []
    for option, values in statistics.items():
        if values is None:
            continue
        if len(values) != channels:
            problems.append(
                f"--model.{option} has {len(values)} values; give one for each channel."
            )
        is_deviation = option.endswith("std")
        if not all(isfinite(value) and (value > 0 or not is_deviation) for value in values):
            limits = "finite and above 0" if is_deviation else "finite"
            problems.append(f"--model.{option} is {values}; its values must be {limits}.")
    return problems
