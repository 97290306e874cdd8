"""The confusion matrix of a classifier, as a picture."""

import warnings
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from seq2seq.callbacks import tensorboard_writer
from seq2seq.class_figures import confusion_figure
from seq2seq.tasks.labelling import LabelTask


class ConfusionLogger(Callback):
    """Draws the confusion matrix of every validation and test of a ``LabelTask``.

    It goes to TensorBoard, and as ``confusion_val.png`` or ``confusion_test.png`` into the run's
    folder. Tasks without labels have none.
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
        title = f"{stage}, step {trainer.global_step}"
        figure = confusion_figure(task.confusion, list(task.class_names), title)
        path = Path(trainer.default_root_dir) / f"confusion_{stage}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = tensorboard_writer(trainer)
        with warnings.catch_warnings():
            # A letter that the font lacks is seen as a box.
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
            figure.savefig(path)
            if writer is not None:
                writer.add_figure(f"{stage}/confusion", figure, trainer.global_step)
