"""The order of training on parts of long rows, one after the other."""

from collections.abc import Iterator

import numpy as np

from datamodules.samplers import BucketBatchSampler


class ChunkBatchSampler(BucketBatchSampler):
    """Batches of chunks: of some rows the first ones, the second ones, and so on to the last.

    The rows of a group go through all of their chunks before those of the next group begin, so that
    a task can carry its state from each batch to the next. Groups are shuffled, and their rows
    dealt to the ranks, as ``BucketBatchSampler`` does with batches; a position may be in the midst
    of a group.

    Chunk ``c`` of row ``r`` is index ``r * chunks + c``.

    Args:
        rows: Number of rows, all of them equally long.
        chunks: Number of chunks of each row.
        batch_size: Number of rows of a group on each rank.
        seed: Of the shuffling.
        rank: Which share to give; that of this process when None.
        world_size: Number of shares; that of ``torch.distributed`` when None.
    """

    def __init__(
        self,
        rows: int,
        chunks: int,
        batch_size: int,
        seed: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        super().__init__(
            np.ones(rows, dtype=np.int64),
            max_tokens=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        self.chunks = chunks

    def __len__(self) -> int:
        return super().__len__() * self.chunks

    def __iter__(self) -> Iterator[list[int]]:
        self.position = self.position if self._is_resumed else 0
        self._is_resumed = False
        order, groups = self._order(), self._batch_order()
        for number in range(self.position, len(self)):
            group, chunk = divmod(number, self.chunks)
            rows = self._share(order, groups[group], self.rank)
            yield (rows * self.chunks + chunk).tolist()
