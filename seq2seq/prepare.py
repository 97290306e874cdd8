"""``seq2seq-prepare``: write the pictures or videos of a recipe into tar shards."""

import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from lightning.pytorch.cli import LightningArgumentParser

from datamodules.base import SequenceDataModule
from datamodules.shard_plan import ShardSource
from datamodules.shard_store import open_store
from datamodules.shard_writer import Written, write_shards
from seq2seq.errors import ConfigError, raise_together
from seq2seq.recipe_command import recipe_parser, run_command

_MEGABYTE = 10**6
_NAME = "seq2seq-prepare"


@runtime_checkable
class Shardable(Protocol):
    """A data module whose items can be written into shards."""

    def shard_source(self) -> ShardSource:
        """Return what to write, after ``prepare_data`` and ``setup``."""
        ...


def build_parser() -> LightningArgumentParser:
    """Return the parser of ``seq2seq-prepare``."""
    parser = recipe_parser(
        _NAME,
        "Write the pictures or videos of a data module into tar shards, which the same data module "
        "reads with --data.format shards, from a folder or from an object store. Started again "
        "after an interruption, it keeps the shards that are finished.",
        "Configuration as for seq2seq; all but its data is left alone.",
    )
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="Folder or URL for the shards, such as s3://bucket/folder.",
    )
    parser.add_argument(
        "--shard_mb", type=float, default=256.0, help="Size of a shard, 10^6 bytes."
    )
    parser.add_argument(
        "--workers",
        type=int | None,
        default=None,
        help="How many shards are written at a time; null for one per core.",
    )
    return parser


def run(arguments: Sequence[str] | None = None) -> Written:
    """Carry out ``seq2seq-prepare``.

    Args:
        arguments: As on the command line; ``sys.argv`` when None.

    Returns:
        What was written.

    Raises:
        ArgumentError: If an option is unknown or has no such value.
        ConfigError: If options do not fit together, or the data module cannot be put into shards.
        DataError: If data is bad, or something cannot be read or written.
    """
    options = build_parser().parse_args(arguments)
    workers = (os.cpu_count() or 1) if options.workers is None else options.workers
    problems = list(_problems(options.data, options.output, options.shard_mb, workers))
    raise_together(problems, ConfigError, "The options cannot work:")
    data: SequenceDataModule = pkgutil.resolve_name(options.data.class_path)(
        **options.data.init_args
    )
    if not isinstance(data, Shardable):
        raise ConfigError(
            f"{type(data).__name__} cannot be put into shards: pictures with captions and videos "
            "can. Text is kept in memory-mapped files anyway."
        )
    data.prepare_data()
    data.setup("fit")
    store = open_store(options.output)
    written = write_shards(data.shard_source(), store, round(options.shard_mb * _MEGABYTE), workers)
    sys.stdout.write(
        f"{written.samples} samples in {written.shards} shards, {written.kept} of them kept from "
        f"an earlier run; {written.left_out} bad files left out.\n"
        f"Read them with --data.format shards, from {options.output}.\n"
    )
    return written


def _problems(data: object, output: str | None, shard_mb: float, workers: int) -> Iterator[str]:
    if data is None:
        yield "There is nothing to prepare: give a --config with data, or --data."
    if output is None:
        yield "--output is not set: give a folder or URL for the shards."
    if not 0 < shard_mb < float("inf"):
        yield f"--shard_mb is {shard_mb}: set it to more than 0."
    if workers < 1:
        yield f"--workers is {workers}: set it to 1 or more."


def main() -> None:
    """Run ``seq2seq-prepare``: status 1 where data is bad, 2 where options are."""
    run_command(_NAME, run)


if __name__ == "__main__":
    main()
