"""Writes checkpoints so that a good one is never lost to one that was not finished."""

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.plugins.io import TorchCheckpointIO

from seq2seq.errors import CheckpointError


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, to the disk, and only then gives it its name.

    Whatever ends the process, and when, a file that has the name of a checkpoint is whole: the new
    one or the one before. Behind a URL it is for the store to see to that.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointError: If it cannot be written; one of the same name is left as it was.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        content = io.BytesIO()  # torch.save has no clear words for a disk that is full
        torch.save(checkpoint, content)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(content.getbuffer(), path)
        except OSError as error:
            kept = " The checkpoint of that name is still the one before." if path.exists() else ""
            raise CheckpointError(
                f"{path}: cannot be written: {error.strerror}.{kept} Make room, or give another "
                "--run_dir, and go on with --ckpt_path."
            ) from error


def _write(content: memoryview, path: Path) -> None:
    # What a kill leaves behind is overwritten by the next one.
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # where a folder is a file, too, whose new entry has to reach the disk
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
