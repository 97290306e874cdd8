"""What the commands share that take the configuration of a recipe, and do not train it."""

import sys
from argparse import ArgumentError
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from jsonargparse import SUPPRESS
from lightning.pytorch.cli import LightningArgumentParser

import datamodules  # noqa: F401  # makes its classes known by their short names
from datamodules.base import SequenceDataModule
from seq2seq.errors import DataError, find_user_error

Result = TypeVar("Result")

# What stands in the configuration of a recipe or a run, beside its data.
_ENTRIES = (
    *("model", "trainer", "checkpoint", "last", "run_dir", "seed_everything", "ckpt_path"),
    *("weights_only", "verbose", "return_predictions"),
)


def recipe_parser(
    prog: str, description: str, config_help: str, used: Collection[str] = ()
) -> LightningArgumentParser:
    """Return a parser that takes ``--config`` and ``--data``.

    Args:
        prog: Name of the command.
        description: What it does.
        config_help: What the configuration is for.
        used: Other entries of a configuration that the command adds itself; the rest is left alone.
    """
    parser = LightningArgumentParser(prog=prog, description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help=config_help)
    parser.add_lightning_class_args(SequenceDataModule, "data", subclass_mode=True, required=False)
    for name in _ENTRIES:
        if name not in used:
            parser.add_argument(f"--{name}", type=Any, help=SUPPRESS)
    return parser


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
