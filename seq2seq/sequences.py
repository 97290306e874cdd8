"""Special ids, lengths and masks, and the shift that teacher forcing needs."""

from collections.abc import Sequence

import torch
from torch import Tensor

PAD_ID = 0
UNK_ID = 1
BOS_ID = 2
EOS_ID = 3


def lengths_to_mask(lengths: Tensor, size: int | None = None) -> Tensor:
    """Return a bool mask ``(batch, size)``, True on the first ``lengths`` positions of each row.

    Args:
        lengths: Number of real positions, int64 ``(batch,)``.
        size: Width of the mask; the largest length when None.
    """
    width = int(lengths.max()) if size is None else size
    return torch.arange(width, device=lengths.device) < lengths.unsqueeze(1)


def pad_sequences(sequences: Sequence[Sequence[int] | Tensor], length: int | None = None) -> Tensor:
    """Stack id sequences into int64 ``(batch, time)``, filled up with ``PAD_ID`` on the right.

    Args:
        sequences: Ids of each row.
        length: ``time``; the longest row when None.
    """
    width = max(map(len, sequences)) if length is None else length
    padded = torch.full((len(sequences), width), PAD_ID, dtype=torch.int64)
    for row, sequence in enumerate(sequences):
        padded[row, : len(sequence)] = torch.as_tensor(sequence, dtype=torch.int64)
    return padded


def shift_right(target: Tensor) -> Tensor:
    """Return what the decoder reads while it learns to emit ``target``.

    Args:
        target: Ids ending in ``EOS_ID`` and padded with ``PAD_ID``, int64 ``(batch, time)``.

    Returns:
        ``BOS_ID`` followed by all but the last position of ``target``, int64 ``(batch, time)``.
    """
    return torch.cat([torch.full_like(target[:, :1], BOS_ID), target[:, :-1]], dim=1)
