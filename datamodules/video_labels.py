"""The labels of videos, checked and as classes."""

from collections.abc import Sequence
from pathlib import Path

from datamodules.faults import Fault, Faults
from datamodules.video_files import labels_of
from datamodules.video_formats import VideoEntry
from seq2seq.errors import DataError
from seq2seq.tokenizers import LABEL_SEPARATOR, LabelVocabulary


def label_text(entry: VideoEntry) -> str:
    """Return the labels of a video as the text that a ``LabelVocabulary`` encodes."""
    return LABEL_SEPARATOR.join(entry.labels)


def check_label_steps(source: Path, entries: Sequence[VideoEntry], label_steps: int) -> None:
    """Check that every video has the same number of labels.

    Args:
        source: Where they come from.
        entries: The videos.
        label_steps: How many labels each needs.

    Raises:
        DataError: If some have another number; it names them.
    """
    fault = Fault(
        f"entries with another number of labels than {label_steps}",
        "Mend them, or set --data.label_steps; --data.label_separator is what stands between "
        "labels.",
    )
    faults = Faults(source, "the labels cannot be used")
    for entry in entries:
        if len(entry.labels) != label_steps:
            listed = ", ".join(map(repr, entry.labels))
            faults.add(fault, f"{entry.place} ({len(entry.labels)}: {listed})")
    faults.raise_all()


def label_vocabulary(
    source: Path, training_entries: Sequence[VideoEntry], num_classes: int
) -> LabelVocabulary:
    """Return the classes: the labels of the training videos, in sorted order.

    Args:
        source: Where they come from.
        training_entries: The training videos.
        num_classes: How many labels there must be.

    Raises:
        DataError: If there are more or fewer, or some cannot be used.
    """
    names = labels_of(training_entries)
    if len(names) != num_classes:
        raise DataError(
            f"{source}: the training videos have {len(names)} labels, not {num_classes}. "
            f"Set --data.num_classes={len(names)}."
        )
    return LabelVocabulary.of(names, str(source))
