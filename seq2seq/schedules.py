"""Learning-rate schedules, by name."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

from lightning.pytorch.utilities.types import LRSchedulerConfigType
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LinearLR, ReduceLROnPlateau

from seq2seq.errors import ConfigError, raise_together

ScheduleName = Literal["constant", "cosine", "inverse_sqrt", "plateau"]


def build_schedules(
    optimizer: Optimizer,
    name: ScheduleName = "constant",
    *,
    warmup_steps: int = 0,
    total_steps: float = math.inf,
    min_ratio: float = 0.0,
    monitor: str = "val_loss",
    mode: Literal["min", "max"] = "min",
    patience: int = 3,
    reduction: float = 0.5,
    epochs_per_validation: int = 1,
) -> list[LRSchedulerConfigType]:
    """Return what Lightning's ``configure_optimizers`` wants after the list of optimisers.

    The learning rate rises linearly over the first ``warmup_steps`` steps of the optimiser, from
    ``1 / warmup_steps`` of the full rate at the first one. Then

    - ``constant`` stays at the full rate;
    - ``cosine`` falls along half a cosine, to ``min_ratio`` at ``total_steps`` (arXiv:1608.03983,
      equation 5, without restarts);
    - ``inverse_sqrt`` falls as ``sqrt(warmup_steps / step)``, steps counted from 1
      (arXiv:1706.03762, equation 3, scaled so that its peak is the full rate);
    - ``plateau`` multiplies by ``reduction`` when more than ``patience`` validations in a row have
      brought no better ``monitor``, down to ``min_ratio``. An epoch with several validations
      counts once, with its last.

    Args:
        optimizer: Whose learning rate to change; its present rate is the full one.
        name: Which schedule.
        warmup_steps: Length of the warm-up in steps of the optimiser; 0 for none.
        total_steps: Length of the training in steps of the optimiser, read by ``cosine``:
            ``trainer.estimated_stepping_batches``, which is infinite without a limit.
        min_ratio: Lowest rate of ``cosine`` and ``plateau``, as a share of the full rate.
        monitor: Logged metric that ``plateau`` watches.
        mode: Whether a better ``monitor`` is smaller or greater.
        patience: Validations in a row without improvement that ``plateau`` lets pass.
        reduction: Factor by which ``plateau`` lowers the rate.
        epochs_per_validation: ``trainer.check_val_every_n_epoch``, so that ``plateau`` does not
            take an epoch without validation for one without improvement.

    Raises:
        ConfigError: If an option is unknown or out of range; all problems together.
    """
    curve = _Curve(warmup_steps, total_steps, min_ratio)
    problems = schedule_problems(
        name,
        warmup_steps=warmup_steps,
        min_ratio=min_ratio,
        patience=patience,
        reduction=reduction,
    )
    if name == "cosine":
        problems += _length_problems(warmup_steps, total_steps)
    raise_together(problems, ConfigError, "The learning-rate schedule cannot be built:")
    if name != "plateau":
        factor = partial(_FACTORS[name], curve)
        return [{"scheduler": LambdaLR(optimizer, factor), "interval": "step"}]
    plateau = ReduceLROnPlateau(
        optimizer,
        mode=mode,
        factor=reduction,
        patience=patience,
        min_lr=[group["lr"] * min_ratio for group in optimizer.param_groups],
    )
    schedules: list[LRSchedulerConfigType] = [
        {
            "scheduler": plateau,
            "monitor": monitor,
            "interval": "epoch",
            "frequency": epochs_per_validation,
        }
    ]
    if warmup_steps > 1:
        # LinearLR multiplies the present rate, so it keeps what the plateau has taken off.
        # A LambdaLR would overwrite it.
        warmup = LinearLR(optimizer, 1 / warmup_steps, total_iters=warmup_steps - 1)
        schedules.append({"scheduler": warmup, "interval": "step"})
    return schedules


class _Curve(NamedTuple):
    """The learning rate as a share of the full rate; ``step`` counts the steps taken, from 0."""

    warmup_steps: int
    total_steps: float
    min_ratio: float

    def constant(self, step: int) -> float:
        return min(1.0, (step + 1) / max(1, self.warmup_steps))

    def cosine(self, step: int) -> float:
        if step < self.warmup_steps:
            return self.constant(step)
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        height = (1 + math.cos(math.pi * min(1.0, progress))) / 2
        return self.min_ratio + (1 - self.min_ratio) * height

    def inverse_sqrt(self, step: int) -> float:
        return min(self.constant(step), math.sqrt(max(1, self.warmup_steps) / (step + 1)))


_FACTORS: dict[str, Callable[[_Curve, int], float]] = {
    "constant": _Curve.constant,
    "cosine": _Curve.cosine,
    "inverse_sqrt": _Curve.inverse_sqrt,
}


def schedule_problems(
    name: str, *, warmup_steps: int, min_ratio: float, patience: int, reduction: float
) -> list[str]:
    """Return what keeps a schedule from being built, however long the training is.

    The arguments are those of ``build_schedules``.
    """
    problems = []
    names = [*_FACTORS, "plateau"]
    if name not in names:
        problems.append(
            f"optimization.schedule={name!r}: choose one of {', '.join(sorted(names))}."
        )
    counts = {"warmup_steps": warmup_steps, "plateau_patience": patience}
    problems += [
        f"optimization.{option}={count} must not be negative."
        for option, count in counts.items()
        if count < 0
    ]
    if not 0 <= min_ratio <= 1:
        problems.append(f"optimization.minimum_ratio={min_ratio} must lie between 0 and 1.")
    if not 0 < reduction < 1:
        problems.append(f"optimization.plateau_reduction={reduction} must lie between 0 and 1.")
    return problems


def _length_problems(warmup_steps: int, total_steps: float) -> list[str]:
    """Return what keeps ``cosine`` from fitting into a training."""
    if math.isinf(total_steps):
        return [
            "optimization.schedule=cosine has to know where training ends: set "
            "--trainer.max_steps or --trainer.max_epochs, or choose another "
            "--model.optimization.schedule."
        ]
    if total_steps <= warmup_steps:
        return [
            f"Training has {total_steps} steps, of which optimization.warmup_steps={warmup_steps} "
            "leaves none to schedule cosine: lower --model.optimization.warmup_steps, or raise "
            "--trainer.max_epochs."
        ]
    return []
