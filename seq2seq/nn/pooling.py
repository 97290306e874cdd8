"""From the outputs of a recurrent stack to one vector: masked mean, maximum and attention."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

PoolingKind = Literal["last", "mean", "max", "attention"]


class Pooling(nn.Module, ABC):
    """Makes one vector of the real positions of a sequence."""

    @abstractmethod
    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Pool a batch.

        Args:
            values: ``(batch, time, size)``.
            mask: True on real positions, at least one in each row, bool ``(batch, time)``.

        Returns:
            ``(batch, size)``.
        """


class MeanPooling(Pooling):
    """The mean over all positions."""

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Return the mean of the real positions, ``(batch, size)``."""
        weights = mask.to(values.dtype) / mask.sum(dim=1, keepdim=True)
        return (weights.unsqueeze(1) @ values).squeeze(1)


class MaxPooling(Pooling):
    """The maximum over all positions, for each of the ``size`` values by itself."""

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Return the maxima of the real positions, ``(batch, size)``."""
        return values.masked_fill(~mask.unsqueeze(2), -torch.inf).amax(dim=1)


class AttentionPooling(Pooling):
    """A mean weighted by how well positions match a learned query.

    Args:
        size: Width of the values.

    Source: Yang et al. 2016, Hierarchical attention networks for document classification,
    equations 5 to 7.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.key = nn.Linear(size, size)
        self.query = nn.Linear(size, 1, bias=False)

    def weigh(self, values: Tensor, mask: Tensor) -> Tensor:
        """Return the weights ``(batch, time)``: zero on padding, one in all."""
        scores: Tensor = self.query(self.key(values).tanh()).squeeze(2)
        return scores.masked_fill(~mask, -torch.inf).softmax(dim=1)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Return the weighted mean of the real positions, ``(batch, size)``."""
        return (self.weigh(values, mask).unsqueeze(1) @ values).squeeze(1)


_POOLINGS: dict[str, Callable[[int], Pooling]] = {
    "mean": lambda _: MeanPooling(),
    "max": lambda _: MaxPooling(),
    "attention": AttentionPooling,
}


def build_pooling(kind: PoolingKind, size: int) -> Pooling | None:
    """Return the pooling called ``kind``; None for ``"last"``, an output as it is."""
    return None if kind == "last" else _POOLINGS[kind](size)


def pooling_problems(kind: str) -> list[str]:
    """Return what keeps the pooling called ``kind`` from being built."""
    if kind in get_args(PoolingKind):
        return []
    return [f"pooling is {kind!r}; choose one of {', '.join(get_args(PoolingKind))}."]
