"""What is wrong with the options of a forecaster."""

from typing import get_args

import lightning.pytorch as pl
import torch

from seq2seq.decoders.series import Head
from seq2seq.errors import ConfigError
from seq2seq.nn.recurrent import Cell
from seq2seq.tasks.options import Optimization, TeacherForcing, range_problems


def option_problems(
    sizes: dict[str, int],
    *,
    cell: str,
    head: str,
    difference: int,
    dropout: float,
    optimization: Optimization,
    teacher_forcing: TeacherForcing,
) -> list[str]:
    """Return what is wrong with the options, one sentence each.

    Args:
        sizes: Options that must be at least 1, by their names.
        cell: Kind of recurrent cell.
        head: What the output layer gives.
        difference: Steps to the value against which changes are modelled.
        dropout: Dropout between layers and before the output layer.
        optimization: Optimiser, learning rate and its schedule.
        teacher_forcing: How often the true value is read in training.
    """
    problems = range_problems(sizes, {"dropout": dropout})
    if difference < 0:
        problems.append(f"difference={difference} must not be negative.")
    problems += [
        f"{option} is {value!r}; choose one of {', '.join(get_args(choices))}."
        for option, value, choices in (("cell", cell, Cell), ("head", head, Head))
        if value not in get_args(choices)
    ]
    if teacher_forcing.is_sampling and not teacher_forcing.is_sampling_by_step:
        problems.append(
            "teacher_forcing.method is 'parallel', and a forecaster samples step by step. Set "
            "--model.teacher_forcing.method step."
        )
    if dropout > 0 and optimization.optimizer == "lbfgs":
        problems.append(
            f"dropout={dropout} draws another mask whenever lbfgs evaluates the loss, which has to "
            "compare them. Set --model.dropout 0, or choose another "
            "--model.optimization.optimizer."
        )
    return problems


def check_precision(trainer: pl.Trainer) -> None:
    """Refuse a trainer that rounds series and their scaling to half precision.

    Raises:
        ConfigError: If it does.
    """
    # What becomes of batches becomes of the forecaster's buffers, too.
    dtype = trainer.precision_plugin.convert_input(torch.zeros(1)).dtype
    if torch.finfo(dtype).bits < 32:
        raise ConfigError(
            f"--trainer.precision is {trainer.precision}, which rounds series and their scaling to "
            "two or three digits: no error would be true. Set --trainer.precision bf16-mixed, "
            "which rounds inside the network only."
        )
