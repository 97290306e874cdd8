"""Batches out of a few shards at a time, so that reading is nearly sequential."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.samplers import BucketBatchSampler

# Batches of similar lengths are cut out of as many samples as this many batches have.
_POOLED_BATCHES = 16


class ShardBatchSampler(BucketBatchSampler):
    """Batches of samples of a few shards, the shards in another order in every epoch.

    The shards are shuffled and laid end to end, and every sample is moved on by a random distance
    of up to ``window`` shards. So about ``window`` shards are in use at a time, and they are taken
    up one after the other, not all at once. Of every sixteen batches that follow each other, the
    samples are then put together by length, and the batches are shuffled.

    Every index comes exactly once, all epochs have the same number of batches, and their rows are
    dealt to the ranks, as ``BucketBatchSampler`` says; how many rows all ranks together have in a
    batch is all that the order depends on. Without shuffling, the shards come in their own order.

    Args:
        lengths: Length of each example, int ``(examples,)``.
        shards: Number of the shard of each example, int ``(examples,)``.
        window: Out of how many shards batches are mixed.
        batch_size: Number of rows of a batch on each rank.
        shuffle: Whether each epoch has its own order, as training wants.
        seed: Of the shuffling.
        rank: Which share to give; that of this process when None.
        world_size: Number of shares; that of ``torch.distributed`` when None.
    """

    def __init__(
        self,
        lengths: NDArray[np.integer[Any]],
        shards: NDArray[np.integer[Any]],
        window: int,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        longest = int(lengths.max(initial=1))
        budget = batch_size * longest  # never exceeded: all batches but the last are full
        super().__init__(lengths, budget, batch_size, shuffle, seed, rank, world_size)
        _, self._shards = np.unique(shards, return_inverse=True)
        self._window = window
        rows = _POOLED_BATCHES * batch_size * self.world_size
        self._pools = np.arange(len(lengths)) // rows
        self._batch_pools = self._pools[self._cuts[:-1]]

    def _order(self) -> NDArray[np.int64]:
        places = self._shards.astype(np.float64)
        ties = np.arange(len(places), dtype=np.float64)
        if self.shuffle:
            generator = self._generator(0)
            places = generator.permutation(self._shards.max(initial=-1) + 1)[self._shards]
            places = places + self._window * generator.random(len(places))
            ties = generator.random(len(places))
        order = np.argsort(places, kind="stable")
        return order[np.lexsort((ties[order], self._lengths[order], self._pools))]

    def _batch_order(self) -> NDArray[np.int64]:
        batches = np.arange(len(self._batch_pools))
        if self.shuffle:
            ties = self._generator(1).random(len(batches))
            batches = np.lexsort((ties, self._batch_pools))
        return batches


def batch_sampler(
    lengths: NDArray[np.int64],
    batch_size: int,
    shards: NDArray[np.int64] | None,
    window: int | None,
    shuffle: bool,
    seed: int,
) -> BucketBatchSampler:
    """Return the sampler of batches of a fixed size, for files or shards.

    Args:
        lengths: Length of each example, int64 ``(examples,)``.
        batch_size: Number of rows of a batch.
        shards: Number of the shard of each example; None for files.
        window: Out of how many shards batches are mixed; None for all of them, as files are.
        shuffle: Whether each epoch has its own order.
        seed: Of the shuffling.
    """
    if shards is not None and window is not None:
        return ShardBatchSampler(lengths, shards, window, batch_size, shuffle, seed)
    budget = batch_size * int(lengths.max(initial=1))
    return BucketBatchSampler(lengths, budget, batch_size, shuffle, seed)
