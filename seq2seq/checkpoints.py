"""Reads checkpoints, and refuses what is damaged, foreign or unsafe before anything uses it."""

import pickle
from pathlib import Path
from typing import Any

import torch

from seq2seq.errors import CheckpointError

CHECKPOINT_KEY = "seq2seq"
"""Entry of a checkpoint that this project adds to Lightning's own."""

_ARCHIVE = b"PK\x03\x04"  # how every file that torch.save writes begins: it is a ZIP archive


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the contents of a checkpoint that ``seq2seq fit`` wrote, tensors on the CPU.

    Raises:
        CheckpointError: If the file is missing, damaged or foreign, or holds anything but tensors
            and plain values, which is refused and not executed.
    """
    _check_archive(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds Python objects beside tensors and plain values, or is damaged. It was "
            "refused and nothing in it was executed. Use a checkpoint that `seq2seq fit` wrote."
        ) from error
    # Which error it is depends on the first wrong byte.
    except Exception as error:
        raise CheckpointError(
            f"{path}: is damaged or was not written to its end. Use another one, such as last.ckpt."
        ) from error
    own = checkpoint.get(CHECKPOINT_KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(own, dict) or not {"task", "version"} <= own.keys():
        raise CheckpointError(
            f"{path}: is no checkpoint of this project (its entry {CHECKPOINT_KEY!r} is missing). "
            "Use one that `seq2seq fit` wrote."
        )
    return checkpoint  # type: ignore[no-any-return]  # a dictionary, as was just seen


def _check_archive(path: Path) -> None:
    """Refuse what `seq2seq fit` cannot have written, before anything tries to read it."""
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_ARCHIVE))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file.") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}.") from error
    if not _ARCHIVE.startswith(beginning):
        raise CheckpointError(
            f"{path}: is no checkpoint, and nothing in it was executed. Use one that `seq2seq fit` "
            "wrote."
        )
