"""The confusion matrix of a classifier, as a picture, and its numbers of each class."""

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from seq2seq.callbacks import tensorboard_writer
from seq2seq.class_figures import confusion_figure
from seq2seq.tasks.labelling import LabelTask


class ConfusionLogger(Callback):
    """Draws the confusion matrix of every validation and test of a ``LabelTask``.

    It goes to TensorBoard, and as ``confusion_val.png`` or ``confusion_test.png`` into the run's
    folder; ``classes_val.csv`` or ``classes_test.csv`` beside it has a row for each class. Tasks
    without labels have none.
    """

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw that of the validation split, unless it was only tried out."""
        if not trainer.sanity_checking:
            self._draw(trainer, pl_module, "val")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw that of the test split."""
        self._draw(trainer, pl_module, "test")

    def _draw(self, trainer: pl.Trainer, task: pl.LightningModule, stage: str) -> None:
        if not isinstance(task, LabelTask) or task.confusion is None or not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        names = list(task.class_names)
        write_classes(folder / f"classes_{stage}.csv", task.confusion, names)
        title = f"{stage}, step {trainer.global_step}"
        figure = confusion_figure(task.confusion, names, title)
        writer = tensorboard_writer(trainer)
        with warnings.catch_warnings():
            # A letter that the font lacks is seen as a box.
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
            figure.savefig(folder / f"confusion_{stage}.png")
            if writer is not None:
                writer.add_figure(f"{stage}/confusion", figure, trainer.global_step)


def write_classes(file: Path, confusion: Tensor, names: Sequence[str]) -> None:
    """Write a table, ``class,examples,correct,accuracy,taken_for,times``.

    ``taken_for`` is the wrong class that examples of the class were most often taken for, of
    equally frequent ones the first, and ``times`` how often; empty where all were right. A class
    without examples has no accuracy.

    Args:
        file: Where to write.
        confusion: Number of examples by true (row) and predicted class, int64
            ``(classes, classes)``; of several labels each counts.
        names: Name of each class.
    """
    rows = []
    for number, (name, counts) in enumerate(zip(names, confusion.tolist(), strict=True)):
        examples, correct = sum(counts), counts[number]
        counts[number] = 0
        times = max(counts)
        accuracy = f"{correct / examples:.4f}" if examples else ""
        taken_for = (names[counts.index(times)], times) if times else ("", "")
        rows.append((name, examples, correct, accuracy, *taken_for))
    with file.open("w", encoding="utf-8", newline="") as stream:
        header = ("class", "examples", "correct", "accuracy", "taken_for", "times")
        csv.writer(stream).writerows([header, *rows])
