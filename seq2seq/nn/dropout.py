"""Dropout over sequences, quick on a CPU too."""

import torch
from torch import Tensor, nn


class SequenceDropout(nn.Module):
    """Dropout over ``(batch, time, size)``, optionally with one mask for all time steps.

    Args:
        rate: Probability of dropping a value.
        is_variational: Drop the same values at every time step of a sequence.

    Source: Gal and Ghahramani 2016, arXiv:1512.05287, section 4.
    """

    def __init__(self, rate: float, is_variational: bool = False) -> None:
        super().__init__()
        self.rate = rate
        self.is_variational = is_variational

    def forward(self, values: Tensor) -> Tensor:
        """Return ``values`` with some zeroed and the rest scaled up, in training only."""
        if not self.training or self.rate == 0:
            return values
        like = values[:, :1] if self.is_variational else values
        return values * _scaled_mask(like, self.rate)


def _scaled_mask(like: Tensor, rate: float) -> Tensor:
    """Return a tensor shaped and typed as ``like``: 0 with probability ``rate``, else scaled up."""
    if like.device.type != "cpu":
        return nn.functional.dropout(torch.ones_like(like), rate)
    # A CPU draws its random numbers one after the other, which would cost more than the rest of
    # dropout. So one 64-bit number serves four values, in steps of 1 / 65536.
    draws = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    numbers = draws.view(torch.int16)[: like.numel()].view(like.shape)
    is_kept = numbers >= round(rate * 65536) - 32768
    return is_kept.to(like.dtype).mul_(1 / (1 - rate))
