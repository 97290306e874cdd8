"""``seq2seq.load``: a checkpoint, ready for raw inputs."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch

from seq2seq.checkpoints import read_checkpoint
from seq2seq.errors import CheckpointError, ConfigError
from seq2seq.search import SearchOptions
from seq2seq.tasks.base import CHECKPOINT_KEY, NOTHING, Prediction, SequenceTask
from seq2seq.tasks.translation import Translator

TASKS: dict[str, type[SequenceTask]] = {"Translator": Translator}
SORTED_BATCHES = 16
"""Batches' worth of inputs that are sorted by length together."""

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["32", "bf16"]


class Predictor:
    """A trained task, ready for raw inputs.

    Args:
        task: The task, with its tokenizers.
        device: Where to run; ``auto`` takes a GPU if there is one.
        precision: ``32``, or ``bf16``, which is quicker where the hardware has it, and may decide
            near ties differently for another batch size.

    Raises:
        ConfigError: If there is no such device.
    """

    def __init__(
        self, task: SequenceTask, device: Device = "auto", precision: Precision = "32"
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        elif device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("--device cuda: no GPU is visible. Use --device cpu or auto.")
        self.task = task.to(device).eval()
        self._is_mixed = precision == "bf16"

    def predict(self, items: Iterable[str], *, batch_size: int = 64, **decoding: Any) -> list[str]:
        """Return the best output for each input, in order.

        Args:
            items: Raw inputs; an empty one gives an empty output.
            batch_size: How many inputs to decode together; it does not change the outputs.
            decoding: Fields of ``SearchOptions``, such as ``beam_size=1``.

        Raises:
            ConfigError: If ``batch_size`` or a decoding option is out of range, or there is no such
                option.
        """
        names = [field.name for field in fields(SearchOptions)]
        if unknown := decoding.keys() - names:
            raise ConfigError(
                f"{', '.join(sorted(unknown))}: no such decoding option. "
                f"Choose from {', '.join(names)}."
            )
        options = replace(self.task.decoding, **decoding)
        return [best.text for best, *_ in self.stream(items, options, batch_size)]

    def stream(
        self, items: Iterable[str], options: SearchOptions, batch_size: int = 64
    ) -> Iterator[list[Prediction]]:
        """Yield the predictions of each input, best first, in order, reading ahead a little."""
        check_batch_size(batch_size)
        items, done = iter(items), 0
        while chunk := list(islice(items, batch_size * SORTED_BATCHES)):
            yield from self.predict_chunk(chunk, options, batch_size, done)
            done += len(chunk)

    def predict_chunk(
        self, items: Sequence[str], options: SearchOptions, batch_size: int = 64, offset: int = 0
    ) -> list[list[Prediction]]:
        """Return the predictions of each input, best first.

        Args:
            items: Raw inputs.
            options: How to search.
            batch_size: How many inputs to decode together.
            offset: Number of inputs before these, so that sampling gives each its own numbers.

        Raises:
            ConfigError: If ``batch_size`` is less than 1.
        """
        check_batch_size(batch_size)
        # Inputs of like length share a batch, so that little is spent on padding.
        order = sorted(
            (row for row, item in enumerate(items) if item.strip()),
            key=lambda row: len(items[row]),
        )
        predictions: list[list[Prediction]] = [[NOTHING] for _ in items]
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = self.task.collate([items[row] for row in rows])
            batch = batch._replace(indices=torch.tensor([offset + row for row in rows]))
            batch = self.task.transfer_batch_to_device(batch, self.task.device, 0)
            with torch.autocast(self.task.device.type, torch.bfloat16, enabled=self._is_mixed):
                found = self.task.predict_batch(batch, options)
            for row, best in zip(rows, found, strict=True):
                predictions[row] = best
        return predictions


def check_batch_size(batch_size: int) -> None:
    """Refuse a batch without room.

    Raises:
        ConfigError: If ``batch_size`` is less than 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} must be at least 1.")


def load(path: str | Path, device: Device = "auto", precision: Precision = "32") -> Predictor:
    """Return a predictor for a checkpoint, without its configuration or training data.

    Args:
        path: A ``.ckpt`` file that ``seq2seq fit`` wrote.
        device: Where to run; ``auto`` takes a GPU if there is one.
        precision: ``32`` or ``bf16``; see ``Predictor``.

    Raises:
        CheckpointError: If the file is missing, damaged, foreign, of another version's format, or
            holds anything but tensors and plain values (which is refused, not executed).
    """
    checkpoint = read_checkpoint(Path(path))
    own = checkpoint[CHECKPOINT_KEY]
    if own["task"] not in TASKS:
        raise CheckpointError(
            f"{path}: is a checkpoint of the task {own['task']!r} (seq2seq {own['version']}); this "
            f"version can predict with {', '.join(TASKS)}."
        )
    try:
        # Lightning adds entries of its own, which begin with an underscore.
        saved = checkpoint["hyper_parameters"].items()
        task = TASKS[own["task"]](
            **{name: value for name, value in saved if not name.startswith("_")}
        )
        task.on_load_checkpoint(checkpoint)
        task.load_state_dict(checkpoint["state_dict"])
    # ConfigError and DataError are ValueErrors.
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: was written by seq2seq {own['version']} and does not fit this version "
            f"(see CHANGELOG.md): {textwrap.shorten(str(error), 300)}"
        ) from error
    return Predictor(task, device, precision)
