"""What the commands share that take the configuration of a recipe, and do not train it."""

import sys
from argparse import ArgumentError
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import lightning.pytorch as pl
from jsonargparse import SUPPRESS, Namespace
from lightning.pytorch.cli import LightningArgumentParser

from datamodules.base import SequenceDataModule
from seq2seq.cli import LINKED_OPTIONS
from seq2seq.errors import DataError, find_user_error

Result = TypeVar("Result")

# What stands in the configuration of a recipe or a run, beside its data and its model.
_ENTRIES = (
    *("trainer", "checkpoint", "last", "run_dir", "seed_everything", "ckpt_path"),
    *("weights_only", "verbose", "return_predictions"),
)


def recipe_parser(
    prog: str,
    description: str,
    config_help: str,
    *,
    with_model: bool = False,
    used: Collection[str] = (),
) -> LightningArgumentParser:
    """Return a parser that takes ``--config`` and ``--data``; the rest of a recipe is left alone.

    Args:
        prog: Name of the command.
        description: What it does.
        config_help: What the configuration is for.
        with_model: Whether to take ``--model``, too, with what it takes from the data module.
        used: Other entries of a configuration that the command adds itself.
    """
    parser = LightningArgumentParser(prog=prog, description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help=config_help)
    parser.add_lightning_class_args(SequenceDataModule, "data", subclass_mode=True, required=False)
    if with_model:
        parser.add_lightning_class_args(
            pl.LightningModule, "model", subclass_mode=True, required=False
        )
        for name in LINKED_OPTIONS:
            parser.link_arguments(f"data.init_args.{name}", f"model.init_args.{name}")
    for name in _ENTRIES if with_model else (*_ENTRIES, "model"):
        if name not in used:
            parser.add_argument(f"--{name}", type=Any, help=SUPPRESS)
    return parser


def build_data(parser: LightningArgumentParser, options: Namespace) -> Any:
    """Return the data module of a recipe."""
    return parser.instantiate_classes(Namespace(data=options.data)).data  # type: ignore[no-untyped-call]


def build_model(parser: LightningArgumentParser, options: Namespace) -> Any:
    """Return the model of a recipe."""
    # What the data settles of it was put there when the options were parsed.
    return parser.instantiate_classes(Namespace(model=options.model)).model  # type: ignore[no-untyped-call]


def run_command(prog: str, run: Callable[[], Result]) -> Result:
    """Return what a command gives; end with status 1 where data is bad, and 2 where options are."""
    try:
        return run()
    except Exception as error:
        mendable = find_user_error(error)
        if mendable is None and not isinstance(error, ArgumentError):
            raise
        sys.stderr.write(f"{prog}: error: {mendable or error}\n")
        sys.exit(1 if isinstance(mendable, DataError) else 2)
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + 2: what a shell reports for a process that Ctrl-C ended
