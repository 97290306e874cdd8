"""Optimisers, by name."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, get_args

from torch import nn
from torch.optim import LBFGS, SGD, Adam, AdamW, Optimizer

from seq2seq.errors import ConfigError, raise_together

OptimizerName = Literal["adam", "adamw", "sgd", "lbfgs"]
LineSearch = Literal["strong_wolfe", "none"]

# Each optimiser that takes one step per gradient, with the options that it alone understands.
_GRADIENT_STEPS: dict[str, tuple[Callable[..., Optimizer], tuple[str, ...]]] = {
    "adam": (Adam, ("betas",)),
    "adamw": (AdamW, ("betas",)),
    "sgd": (SGD, ("momentum",)),
}
_NAMES = (*_GRADIENT_STEPS, "lbfgs")
_LBFGS_PRECISIONS = ("32-true", "64-true")
_LBFGS_TOLERANCE = 1e-14  # of gradient and step


class LBFGSOptions(NamedTuple):
    """What ``lbfgs`` alone understands.

    Attributes:
        max_iterations: Iterations of one optimiser step, each with one evaluation of loss and
            gradient or, where the line search asks for them, several.
        history_size: Number of earlier iterations that curvature is known from.
        line_search: ``strong_wolfe`` finds a step length that lowers the loss; ``none`` takes the
            learning rate for it, unseen.
    """

    max_iterations: int = 20
    history_size: int = 20
    line_search: LineSearch = "strong_wolfe"


_LBFGS_DEFAULTS = LBFGSOptions()


def build_optimizer(
    model: nn.Module,
    name: OptimizerName = "adam",
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    momentum: float = 0.0,
    lbfgs: LBFGSOptions = _LBFGS_DEFAULTS,
    groups: Sequence["ParameterGroup"] = (),
) -> Optimizer:
    """Return an optimiser of the trainable parameters of ``model``.

    Weight decay spares embeddings and everything with fewer than two dimensions (biases, gains of
    normalisations): it would pull rare words, whose rows seldom get a gradient, to zero. An output
    matrix tied to an embedding is spared with it. Decay is decoupled from the gradient in ``adamw``
    (arXiv:1711.05101, algorithm 2) and part of it in ``adam`` and ``sgd``.

    Args:
        model: Whose parameters to optimise; frozen ones are left out.
        name: Which optimiser.
        learning_rate: Step size after the warm-up.
        weight_decay: Coefficient of the decay.
        betas: Decay rates of the two moments, read by ``adam`` and ``adamw``.
        momentum: Read by ``sgd``.
        lbfgs: Read by ``lbfgs``.
        groups: Parameters that learn at a rate of their own.

    Raises:
        ConfigError: If an option is unknown or out of range; all problems together.
    """
    problems = optimizer_problems(
        name,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        betas=betas,
        momentum=momentum,
        lbfgs=lbfgs,
    )
    if name == "lbfgs" and groups:
        problems.append(
            "optimization.optimizer=lbfgs has one step length for all parameters, and these "
            "options give some of them a learning rate of their own. Choose another "
            "--model.optimization.optimizer."
        )
    raise_together(problems, ConfigError, "The optimiser cannot be built:")
    if name == "lbfgs":
        return LBFGS(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=learning_rate,
            max_iter=lbfgs.max_iterations,
            history_size=lbfgs.history_size,
            line_search_fn=None if lbfgs.line_search == "none" else lbfgs.line_search,
            # The defaults of torch end a step early where a loss is small, as a mean square is.
            tolerance_grad=_LBFGS_TOLERANCE,
            tolerance_change=_LBFGS_TOLERANCE,
        )
    constructor, own_options = _GRADIENT_STEPS[name]
    options = {"betas": betas, "momentum": momentum}
    optimizer = constructor(
        _parameter_groups(model, weight_decay, groups),
        lr=learning_rate,
        # One kernel for the whole update, where a CPU would otherwise start one per operation; but
        # that of SGD fails where a parameter gets its first gradient late (torch 2.15).
        fused=name != "sgd",
        **{option: options[option] for option in own_options},
    )
    # Left True, Lightning refuses to clip gradients under mixed precision, bf16 included, because
    # the step could unscale them itself. It need not: the gradient scaler does it, as for every
    # optimiser that is not fused.
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return optimizer


def optimizer_problems(
    name: str,
    *,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    momentum: float,
    lbfgs: LBFGSOptions = _LBFGS_DEFAULTS,
) -> list[str]:
    """Return what keeps an optimiser from being built; the arguments are ``build_optimizer``'s."""
    problems = []
    if name not in _NAMES:
        problems.append(f"optimization.optimizer={name!r}: choose one of {_names(_NAMES)}.")
    if not learning_rate > 0:
        problems.append(f"optimization.learning_rate={learning_rate} must be greater than 0.")
    problems += _negative(weight_decay=weight_decay, momentum=momentum)
    problems += [
        f"optimization.beta{number}={beta} must be at least 0 and less than 1."
        for number, beta in enumerate(betas, start=1)
        if not 0 <= beta < 1
    ]
    if name == "lbfgs" and weight_decay > 0:
        problems.append(
            f"optimization.weight_decay={weight_decay} is not for lbfgs, whose line search would "
            "not know of it. Set --model.optimization.weight_decay 0."
        )
    for option in ("max_iterations", "history_size"):
        if (value := getattr(lbfgs, option)) < 1:
            problems.append(f"optimization.{option}={value} must be at least 1.")
    if lbfgs.line_search not in get_args(LineSearch):
        choices = _names(get_args(LineSearch))
        problems.append(f"optimization.line_search={lbfgs.line_search!r}: choose one of {choices}.")
    return problems


def trainer_problems(
    name: str,
    *,
    devices: int,
    precision: str,
    accumulated_batches: int,
    clips_gradients: bool,
    batches_per_epoch: float,
) -> list[str]:
    """Return what an optimiser cannot do of that which the trainer asks for.

    ``lbfgs`` evaluates loss and gradient several times in one step and compares them: all of them
    have to be exact, and of the same data.

    Args:
        name: Which optimiser.
        devices: Number of processes that train together.
        precision: That of Lightning's trainer.
        accumulated_batches: Number of batches whose gradients one step adds up.
        clips_gradients: Whether long gradients are shortened.
        batches_per_epoch: Number of training batches of one process.
    """
    if name != "lbfgs":
        return []
    problems = []
    if devices > 1:
        problems.append(
            f"runs in one process, and there are {devices}: the line search of each would go "
            "another way. Set --trainer.devices 1 and --trainer.num_nodes 1."
        )
    if precision not in _LBFGS_PRECISIONS:
        problems.append(
            f"compares losses that --trainer.precision {precision} rounds too much. Set it to "
            f"{' or '.join(_LBFGS_PRECISIONS)}."
        )
    if accumulated_batches > 1:
        problems.append(
            "evaluates the loss of one batch again and again, and cannot add up the gradients of "
            f"{accumulated_batches}. Set --trainer.accumulate_grad_batches 1."
        )
    if clips_gradients:
        problems.append(
            "needs the gradient as it is. Leave out --trainer.gradient_clip_val; the line search "
            "keeps steps short."
        )
    if batches_per_epoch > 1:
        problems.append(
            f"needs all of the training data in one batch, and there are {batches_per_epoch:g}: it "
            "would take the difference of two batches for curvature. Raise --data.batch_size, "
            "without --data.tbptt_steps, or set --trainer.limit_train_batches 1."
        )
    return [f"optimization.optimizer=lbfgs {problem}" for problem in problems]


class ParameterGroup(NamedTuple):
    """Parameters that learn at a rate of their own.

    Attributes:
        parameters: Which.
        learning_rate: Step size after the warm-up.
    """

    parameters: list[nn.Parameter]
    learning_rate: float


def _parameter_groups(
    model: nn.Module, weight_decay: float, own: Sequence[ParameterGroup]
) -> list[dict[str, object]]:
    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    elsewhere = {parameter for group in own for parameter in group.parameters}
    shared = [parameter for parameter in trainable if parameter not in elsewhere]
    found: list[dict[str, object]] = []
    for parameters, rate in ((shared, None), *own):
        decayed = [p for p in parameters if p.ndim > 1 and p not in embeddings]
        spared = [p for p in parameters if p.ndim <= 1 or p in embeddings]
        options = {} if rate is None else {"lr": rate}
        for params, decay in ((decayed, weight_decay), (spared, 0.0)):
            if params:
                found.append({"params": params, "weight_decay": decay, **options})
    return found


def _negative(**options: float) -> list[str]:
    return [
        f"optimization.{name}={value} must not be negative."
        for name, value in options.items()
        if not value >= 0
    ]


def _names(choices: Iterable[str]) -> str:
    return ", ".join(sorted(choices))
