"""``seq2seq.load``: a checkpoint, ready for raw inputs."""

import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch

from seq2seq.batches import NOTHING, Prediction
from seq2seq.checkpoints import CHECKPOINT_KEY, read_checkpoint
from seq2seq.errors import CheckpointError, ConfigError, DataError
from seq2seq.explanation import ExplanationKind, explain, require_explainable
from seq2seq.search import SearchOptions
from seq2seq.tasks.base import ItemKind, SequenceTask
from seq2seq.tasks.captioning import Captioner
from seq2seq.tasks.forecasting import Forecaster
from seq2seq.tasks.learning import LearningTask
from seq2seq.tasks.text_classification import TextClassifier
from seq2seq.tasks.translation import Translator
from seq2seq.tasks.video import VideoClassifier

TASKS: dict[str, type[LearningTask]] = {
    task.__name__: task
    for task in (Translator, Captioner, VideoClassifier, TextClassifier, Forecaster)
}
CHUNK_BATCHES: dict[ItemKind, int] = {"line": 16, "picture": 4, "video": 2}
"""Batches' worth of inputs that are predicted together: many where they are sorted by length, else
enough that the next batch is read while one is decoded."""

_READERS = 4  # threads that load inputs; decoding a picture leaves the others free to run

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
        self.task = task.to(find_device(device)).eval()
        self._is_mixed = precision == "bf16"

    def chunk_size(self, batch_size: int) -> int:
        """Return how many inputs to give to ``predict_chunk`` at once.

        Raises:
            ConfigError: If ``batch_size`` is less than 1.
        """
        check_batch_size(batch_size)
        return batch_size * CHUNK_BATCHES[self.task.item_kind]

    def predict(
        self, items: Iterable[str | os.PathLike[str]], *, batch_size: int = 64, **decoding: Any
    ) -> list[str]:
        """Return the best output for each input, in order.

        Args:
            items: Raw inputs, lines of text or paths as the task has it; an empty one gives an
                empty output.
            batch_size: How many inputs to decode together; it does not change the outputs.
            decoding: Fields of ``SearchOptions``, such as ``beam_size=1``.

        Raises:
            ConfigError: If ``batch_size`` or a decoding option is out of range, or there is no such
                option.
            DataError: If an input cannot be used, such as a damaged picture. ``stream`` goes on
                where this stops.
        """
        names = [field.name for field in fields(SearchOptions)]
        if unknown := decoding.keys() - names:
            raise ConfigError(
                f"{', '.join(sorted(unknown))}: no such decoding option. "
                f"Choose from {', '.join(names)}."
            )
        options = replace(self.task.decoding, **decoding)
        outputs = []
        for best, *_ in self.stream(items, options, batch_size):
            if best.error is not None:
                raise DataError(best.error)
            outputs.append(best.text)
        return outputs

    def stream(
        self,
        items: Iterable[str | os.PathLike[str]],
        options: SearchOptions,
        batch_size: int = 64,
    ) -> Iterator[list[Prediction]]:
        """Yield the predictions of each input, best first, in order, reading ahead a little.

        An input that cannot be used has one prediction, which says why as its ``error``.
        """
        size, done = self.chunk_size(batch_size), 0
        remaining = (os.fspath(item) for item in items)
        while chunk := list(islice(remaining, size)):
            yield from self.predict_chunk(chunk, options, batch_size, done)
            done += len(chunk)

    def follow_frames(self, item: str) -> Iterator[Prediction]:
        """Yield what a video shows, after each of its frames; in constant memory.

        Where it cannot be used, or not to its end, the last prediction says why as its ``error``.

        Args:
            item: Path of a video.

        Raises:
            ConfigError: If the task is not for videos, or needs the whole of one.
        """
        task = self.task
        if not isinstance(task, VideoClassifier):
            raise ConfigError("Only a video classifier can follow the frames of a video.")
        predictions = task.stream().follow(Path(item))
        try:
            while True:
                with self._autocast():  # ends before the caller goes on
                    prediction = next(predictions, None)
                if prediction is None:
                    return
                yield prediction
        except DataError as error:
            yield NOTHING._replace(error=str(error))

    def predict_chunk(
        self,
        items: Sequence[str],
        options: SearchOptions,
        batch_size: int = 64,
        offset: int = 0,
        explanation: ExplanationKind | None = None,
    ) -> list[list[Prediction]]:
        """Return the predictions of each input, best first.

        An input that cannot be used has one prediction, which says why as its ``error``.

        Args:
            items: Raw inputs.
            options: How to search.
            batch_size: How many inputs to decode together.
            offset: Number of inputs before these, so that sampling gives each its own numbers.
            explanation: What the best prediction's contributions are; None for no contributions.

        Raises:
            ConfigError: If ``batch_size`` is less than 1, or the task's predictions cannot be
                explained.
        """
        check_batch_size(batch_size)
        # Inputs of like length share a batch, so that little is spent on padding.
        order = sorted(
            (row for row, item in enumerate(items) if item.strip()),
            key=lambda row: self.task.item_length(items[row]),
        )
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        predictions: list[list[Prediction]] = [[NOTHING] for _ in items]
        for rows, loaded in zip(batches, self._load_batches(items, batches), strict=True):
            usable = {}
            for row, item in zip(rows, loaded, strict=True):
                if isinstance(item, DataError):
                    predictions[row] = [NOTHING._replace(error=str(item))]
                else:
                    usable[row] = item
            if usable:
                places = torch.tensor([offset + row for row in usable])
                found = self._predict_batch(list(usable.values()), places, options, explanation)
                for row, best in zip(usable, found, strict=True):
                    predictions[row] = best
        return predictions

    def _load_batches(
        self, items: Sequence[str], batches: list[list[int]]
    ) -> Iterator[list[Any | DataError]]:
        """Yield what the task loads for each batch, and why it could not."""

        def load_item(row: int) -> Any | DataError:
            try:
                return self.task.load_item(items[row])
            except DataError as error:
                return error

        with ThreadPoolExecutor(_READERS) as readers:
            loads = (readers.map(load_item, rows) for rows in batches)
            following = next(loads, None)
            while following is not None:
                # The next batch is read while the caller decodes this one; no more than that, as
                # pictures fill the memory.
                present, following = following, next(loads, None)
                yield list(present)

    def _predict_batch(
        self,
        loaded: list[Any],
        places: torch.Tensor,
        options: SearchOptions,
        explanation: ExplanationKind | None,
    ) -> list[list[Prediction]]:
        batch = self.task.collate(loaded)._replace(indices=places)
        batch = self.task.transfer_batch_to_device(batch, self.task.device, 0)
        with self._autocast():
            found = self.task.predict_batch(batch, options)
            if explanation is None:
                return found
            task = require_explainable(self.task, explanation)
            explained = explain(task, batch, [best for best, *_ in found], explanation, loaded)
        return [[best, *others] for best, (_, *others) in zip(explained, found, strict=True)]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.task.device.type, torch.bfloat16, enabled=self._is_mixed)


def check_batch_size(batch_size: int) -> None:
    """Refuse a batch without room.

    Raises:
        ConfigError: If ``batch_size`` is less than 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} must be at least 1.")


def find_device(device: Device) -> str:
    """Return the device that is meant.

    Raises:
        ConfigError: If it is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: no GPU is visible. Use --device cpu or auto.")
    return device


def load(path: str | Path, device: Device = "auto", precision: Precision = "32") -> Predictor:
    """Return a predictor for a checkpoint, without its configuration or training data.

    Args:
        path: A ``.ckpt`` file that ``seq2seq fit`` wrote.
        device: Where to run; ``auto`` takes a GPU if there is one.
        precision: ``32`` or ``bf16``; see ``Predictor``.

    Raises:
        CheckpointError: If the file cannot be used; see ``load_task``.
        ConfigError: If it is a forecaster's, or there is no such device.
    """
    task = load_task(path)
    if not isinstance(task, SequenceTask):
        raise ConfigError(
            f"{path}: is a checkpoint of the task {type(task).__name__}, which goes on with "
            "numbers. Use seq2seq.load_forecaster."
        )
    return Predictor(task, device, precision)


def load_task(path: str | Path) -> LearningTask:
    """Return the task of a checkpoint, as it was trained.

    Args:
        path: A ``.ckpt`` file that ``seq2seq fit`` wrote.

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
    return task
