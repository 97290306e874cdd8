"""``seq2seq-prepare``: make ready what the data module of a recipe reads in training."""

import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from datamodules.base import SequenceDataModule
from datamodules.captioning import CaptionDataModule
from datamodules.shard_index import INDEX, ShardKind
from datamodules.shard_plan import ShardSource
from datamodules.shard_store import open_store
from datamodules.shard_writer import Written, write_shards
from datamodules.video import VideoDataModule
from seq2seq.errors import ConfigError, raise_together
from seq2seq.predictor import find_device
from seq2seq.recipe_command import build_data, build_model, recipe_parser, run_command
from seq2seq.tasks.captioning import Captioner
from seq2seq.tasks.video import VideoClassifier

_MEGABYTE = 10**6
_NAME = "seq2seq-prepare"
# The data module that reads shards, and its option that names their place.
_READERS: dict[ShardKind, tuple[str, str]] = {
    "pictures": ("CaptionDataModule", "captions"),
    "features": ("CaptionDataModule", "captions"),
    "videos": ("VideoDataModule", "source"),
    "video features": ("VideoDataModule", "source"),
}
# The data modules whose items can become features, the items, and the task with the network.
_VIEWERS: tuple[tuple[type[SequenceDataModule], str, type[Captioner | VideoClassifier]], ...] = (
    (CaptionDataModule, "pictures", Captioner),
    (VideoDataModule, "videos", VideoClassifier),
)


@runtime_checkable
class Shardable(Protocol):
    """A data module whose items can be written into shards."""

    format: str
    cache_features: bool

    def shard_source(self) -> ShardSource:
        """Return what to write, after ``prepare_data`` and ``setup``."""
        ...


@runtime_checkable
class Cached(Protocol):
    """A data module that keeps what ``prepare_data`` makes in a folder."""

    def cache_path(self) -> Path:
        """Return the folder."""
        ...


def build_parser() -> LightningArgumentParser:
    """Return the parser of ``seq2seq-prepare``."""
    parser = recipe_parser(
        _NAME,
        "Make ready what the data module of a recipe reads in training, in the cache folder "
        "(--data.cache_dir), where a run finds it. With --output, pictures and videos are written "
        "into tar shards, which a CaptionDataModule or VideoDataModule reads with --data.format "
        "shards, from a folder or from an object store; with --data.cache_features true, it is "
        "what the frozen network of the recipe's model makes of them. Started again after an "
        "interruption, it keeps the shards that are finished.",
        "Configuration as for seq2seq; its data is used, and its model where that makes features.",
        with_model=True,
    )
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="Folder or URL for shards, such as s3://bucket/folder; null to write none.",
    )
    parser.add_argument(
        "--shard_mb",
        type=float,
        default=256.0,
        help="Size of a shard, 10^6 bytes; of features of videos, about that.",
    )
    parser.add_argument(
        "--workers",
        type=int | None,
        default=None,
        help="How many shards are written at a time; null for one per core. A network that makes "
        "features takes them in turn.",
    )
    return parser


def run(arguments: Sequence[str] | None = None) -> Written | None:
    """Carry out ``seq2seq-prepare``.

    Args:
        arguments: As on the command line; ``sys.argv`` when None.

    Returns:
        What was written into shards; None for data that is not put there.

    Raises:
        ArgumentError: If an option is unknown or has no such value.
        ConfigError: If options do not fit together.
        DataError: If data is bad, or something cannot be read or written.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.data is None:
        raise ConfigError("There is nothing to prepare: give a --config with data, or --data.")
    data: SequenceDataModule = build_data(parser, options)
    workers = (os.cpu_count() or 1) if options.workers is None else options.workers
    problems = list(_problems(data, options.output, options.shard_mb, workers))
    raise_together(problems, ConfigError, "The options cannot work:")
    if options.output is None or not isinstance(data, Shardable):
        data.prepare_data()
        sys.stdout.write(f"{_where(data)}\n")
        return None
    store = open_store(options.output)
    store.read(INDEX)  # a place out of reach is known before hours of work, not after
    if data.cache_features:
        _viewer(parser, options, data).show(data)
    data.prepare_data()
    data.setup("fit")
    source = data.shard_source()
    written = write_shards(source, store, round(options.shard_mb * _MEGABYTE), workers)
    reader, option = _READERS[source.kind]
    features = " --data.cache_features true" if data.cache_features else ""
    sys.stdout.write(
        f"{written.samples} samples in {written.shards} shards, {written.kept} of them kept from "
        f"an earlier run; {written.left_out} bad files left out.\n"
        f"Read them with --data {reader} --data.format shards{features} --data.{option} "
        f"{options.output}.\n"
    )
    return written


def _viewer(
    parser: LightningArgumentParser, options: Namespace, data: SequenceDataModule
) -> Captioner | VideoClassifier:
    """Return the recipe's model, whose network is to make features of its data."""
    [(what, kind)] = [(what, kind) for reader, what, kind in _VIEWERS if isinstance(data, reader)]
    name = None if options.model is None else options.model.class_path
    if name is None or not issubclass(pkgutil.resolve_name(name), kind):
        found = "no model" if name is None else f"a {name.rpartition('.')[2]}"
        raise ConfigError(
            f"--data.cache_features puts into shards what the {kind.__name__} of a recipe makes of "
            f"{what}, and here is {found}. Give a recipe that has one, or set it to false."
        )
    task: Captioner | VideoClassifier = build_model(parser, options)
    if task.backbone_weights is None and task.init_from is None:
        raise ConfigError(
            "The backbone has no weights, and features of one that chance made fit no other run. "
            "Set --model.backbone_weights or --model.init_from."
        )
    task.load_initial_weights()
    return task.to(find_device("auto")).eval()


def _where(data: SequenceDataModule) -> str:
    """Return a sentence on where a data module has put what it made ready."""
    name = type(data).__name__
    if not isinstance(data, Cached):
        return f"A {name} keeps nothing on disk: there is nothing to prepare."
    found = (
        "where runs with the same --data options find it; --data.cache_dir chooses another place"
    )
    if not isinstance(data, Shardable):
        return f"The data of the {name} lies ready in {data.cache_path()}, {found}."
    return (
        f"The {name} is prepared. What it keeps on disk goes to {data.cache_path()}, {found}. "
        "Frames and features are made when training begins; shards are written with --output."
    )


def _problems(
    data: SequenceDataModule, output: str | None, shard_mb: float, workers: int
) -> Iterator[str]:
    if output is not None:
        if not isinstance(data, Shardable):
            yield (
                f"--output is for shards, into which a {type(data).__name__} puts nothing: leave "
                "it out. What is kept on disk goes to the folder that --data.cache_dir chooses."
            )
        elif data.format == "shards":
            yield (
                "--output is for shards, and with --data.format shards the data is in shards "
                "already: leave it out, or give a recipe that reads files."
            )
    if not 0 < shard_mb < float("inf"):
        yield f"--shard_mb is {shard_mb}: set it to more than 0."
    if workers < 1:
        yield f"--workers is {workers}: set it to 1 or more."


def main() -> None:
    """Run ``seq2seq-prepare``: status 1 where data is bad, 2 where options are."""
    run_command(_NAME, run)


if __name__ == "__main__":
    main()
