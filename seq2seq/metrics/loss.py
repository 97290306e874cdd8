"""The mean loss of a whole corpus, as one torchmetrics metric."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class CorpusLoss(Metric):
    """Mean loss per token of a corpus whose batches may come twice.

    A distributed sampler gives some batches to two ranks, so that all have as many; here each
    counts once, and the mean is that of a single process.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    # Per batch: the index of its first example and its number of tokens, int64 ``(1, 2)``; and its
    # summed loss, float32 ``(1,)``, which would not hold a large index.
    batches: list[Tensor]
    sums: list[Tensor]

    def __init__(self, **options: Any) -> None:  # Any: what torchmetrics offers every metric
        super().__init__(**options)
        self.add_state("batches", default=[], dist_reduce_fx="cat", persistent=False)
        self.add_state("sums", default=[], dist_reduce_fx="cat", persistent=False)

    def update(self, mean: Tensor, tokens: Tensor | int, indices: Tensor) -> None:
        """Add a batch.

        Args:
            mean: Its loss per token, a scalar.
            tokens: How many tokens it has.
            indices: Position of each example in its corpus, int64 ``(batch,)``: the first tells
                batches apart.
        """
        count = torch.as_tensor(tokens, device=self.device).view(1)
        self.batches.append(torch.stack([indices[:1].to(count), count], dim=1))
        self.sums.append((mean.detach().float() * count).to(self.device))

    def compute(self) -> Tensor:
        """Return the mean over all ranks, a scalar; not a number where there is no token.

        With several processes this is a collective call, and each rank needs a batch.
        """
        if not len(self.batches):
            return torch.tensor(torch.nan, device=self.device)
        known: dict[int, tuple[float, int]] = {}
        batches, sums = dim_zero_cat(self.batches).tolist(), dim_zero_cat(self.sums).tolist()
        for (first, tokens), total in zip(batches, sums, strict=True):
            known.setdefault(first, (total, tokens))
        totals, counts = zip(*known.values(), strict=True)
        mean = sum(totals) / sum(counts) if any(counts) else torch.nan
        return torch.tensor(mean, device=self.device)
