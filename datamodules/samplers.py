"""Samplers: batches of similar lengths within a token budget, and the share of one rank."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch.distributed
from numpy.typing import NDArray
from torch.utils.data import Sampler

_log = logging.getLogger(__name__)

# Sentences within a tenth of each other's length are shuffled among each other.
_BUCKET_GROWTH = 1.1


class BucketBatchSampler(Sampler[list[int]]):
    """Batches of dataset indices of similar length.

    Lengths are divided into buckets, each a tenth longer than the one before. In every epoch the
    indices are shuffled within their bucket, the buckets are laid end to end and cut into batches,
    and the batches are shuffled. The cuts depend on ``lengths`` alone, not on the epoch: so every
    epoch has the same number of batches, which Lightning asks for only once, and every index comes
    exactly once. Without shuffling, the batches are cut from the sorted indices, shortest first.

    With several ranks a batch is cut for all of them and its rows are dealt out in turn: in every
    step, all have as many rows of like lengths, and the last batch alone may have one row more for
    some. Where it has fewer rows than there are ranks, each rank has all of them (or, where its
    budget is too small for that, one of them), and a metric must leave out what it has seen, by
    index. One of them each, some rows have a rank more than others and weigh more in the gradient,
    up to twice as much: in one step of an epoch, of rows that are among the longest. So a step of
    ``n`` ranks sees what a step of one rank with ``n`` times the budgets sees; exactly, where
    ``max_sentences`` and not ``max_tokens`` limits the rows.

    The order is a pure function of ``(seed, epoch)``; with ``position`` a run resumes exactly.

    Args:
        lengths: Length of each example, int ``(examples,)``.
        max_tokens: Budget of a rank's share of a batch: its longest length times its rows stays
            within. An example that is longer is a share of its own.
        max_sentences: Largest number of rows of a share; no limit when None.
        shuffle: Whether each epoch has its own order, as training wants.
        seed: Of the shuffling.
        rank: Which share to give; that of this process when None.
        world_size: Number of shares; that of ``torch.distributed`` when None.

    Attributes:
        epoch: Which order is given next.
        position: How many batches of this epoch have been used on this rank. Loaders fetch ahead,
            so only who takes their batches can count: ``ResumableLoader`` does.
    """

    def __init__(
        self,
        lengths: NDArray[np.integer[Any]],
        max_tokens: int,
        max_sentences: int | None = None,
        shuffle: bool = True,
        seed: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        default_rank, default_world_size = current_rank()
        self.rank = default_rank if rank is None else rank
        self.world_size = default_world_size if world_size is None else world_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self.position = 0
        self._is_resumed = False
        self._epoch_offset = 0
        self._lengths = np.asarray(lengths, dtype=np.int64)
        self._sorted = np.argsort(self._lengths, kind="stable")
        widths = self._lengths[self._sorted]
        if shuffle:
            self._bucket, widths = _buckets(widths)
        self._cuts = _cut(widths, max_tokens, max_sentences, self.world_size)
        # How many rows surely fit into a share, whichever they are.
        self._fitting = _rows(int(widths.max(initial=1)), max_tokens, max_sentences)

    @property
    def sampler(self) -> "BucketBatchSampler":
        """This sampler: Lightning looks for ``set_epoch`` on ``loader.batch_sampler.sampler``."""
        return self

    @property
    def padding_share(self) -> float:
        """Share of padding in the batches of this epoch, all ranks together, between 0 and 1."""
        padded, real = (int(tokens.sum()) for tokens in self._tokens())
        return 1.0 - real / padded if padded else 0.0

    @property
    def imbalance(self) -> float:
        """How many times the mean of all ranks the largest share has, in padded tokens; 1 or more.

        It is the mean over the steps of this epoch, weighted by their tokens: a step takes as long
        as its largest share.
        """
        padded, _ = self._tokens()
        mean = float(padded.mean(axis=1).sum())
        return float(padded.max(axis=1).sum()) / mean if mean else 1.0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order to give next; does nothing when ``epoch`` is already under way.

        After ``load_state_dict``, the state says which epoch is next, and ``epoch`` counts from
        there: on resuming from the end of an epoch, Lightning 2.6 passes through an empty epoch,
        and its number is one too high from then on.
        """
        wanted = epoch - self._epoch_offset
        if self._is_resumed:
            if wanted > self.epoch and self.position:
                # The saved epoch was over before its last batch: limit_train_batches.
                self.epoch += 1
                self.position = 0
            self._epoch_offset = epoch - self.epoch
        elif wanted != self.epoch:
            self.epoch = wanted
            self.position = 0

    def state_dict(self) -> dict[str, int]:
        """Return where to go on: the epoch, and how many of its batches have been used."""
        is_finished = self.position >= len(self)
        return {
            "epoch": self.epoch + is_finished,
            "epoch_offset": self._epoch_offset,
            "position": 0 if is_finished else self.position,
            "batches": len(self),
            "seed": self.seed,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where ``state`` was taken.

        With another number of batches or another seed, that place does not exist: the epoch then
        starts again, and a warning is logged.
        """
        self.epoch = state["epoch"]
        self._epoch_offset = state["epoch_offset"]
        self.position = state["position"]
        if (state["batches"], state["seed"]) != (len(self), self.seed):
            self.position = 0
            _log.warning(
                "The data, the batch size, the seed or the number of processes has changed since "
                "the checkpoint (%d batches, now %d): epoch %d starts again.",
                state["batches"],
                len(self),
                self.epoch,
            )
        self._is_resumed = True

    def __len__(self) -> int:
        return len(self._cuts) - 1

    def __iter__(self) -> Iterator[list[int]]:
        self.position = self.position if self._is_resumed else 0
        self._is_resumed = False
        order, batches = self._order(), self._batch_order()
        for batch in batches[self.position :]:
            yield self._share(order, batch, self.rank).tolist()

    def _order(self) -> NDArray[np.int64]:
        if not self.shuffle:
            return self._sorted
        ties = self._generator(0).random(len(self._sorted))
        return self._sorted[np.lexsort((ties, self._bucket))]

    def _batch_order(self) -> NDArray[np.int64]:
        """Return the numbers of the batches, in the order of this epoch."""
        batches = np.arange(len(self._cuts) - 1)
        return self._generator(1).permutation(batches) if self.shuffle else batches

    def _share(self, order: NDArray[np.int64], batch: int, rank: int) -> NDArray[np.int64]:
        """Return the rows of a batch that a rank has; ``order`` is that of the epoch."""
        rows = order[self._cuts[batch] : self._cuts[batch + 1]]
        if len(rows) >= self.world_size:
            return rows[rank :: self.world_size]
        # Of rows that all ranks have, none weighs more than another.
        return rows if len(rows) <= self._fitting else rows[[rank % len(rows)]]

    def _tokens(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the tokens of each share, with and without padding, ``(batches, ranks)``."""
        order = self._order()
        shares = [
            self._lengths[self._share(order, batch, rank)]
            for batch in range(len(self._cuts) - 1)
            for rank in range(self.world_size)
        ]
        padded = [len(lengths) * int(lengths.max()) for lengths in shares]
        real = [int(lengths.sum()) for lengths in shares]
        return np.reshape(padded, (-1, self.world_size)), np.reshape(real, (-1, self.world_size))

    def _generator(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.epoch, purpose))


class RankSampler(Sampler[int]):
    """Every ``world_size``-th index in order: the share of one rank in prediction.

    Lightning takes batch samplers apart in prediction, and leaves samplers whole.

    Args:
        size: Number of examples.
        left_out: Indices below ``size`` that no rank has, int64 ``(examples,)``; none when None.
    """

    def __init__(self, size: int, left_out: NDArray[np.int64] | None = None) -> None:
        rank, world_size = current_rank()
        indices = np.arange(size)
        if left_out is not None:
            indices = np.delete(indices, left_out)
        self._indices = indices[rank::world_size].copy()  # of this share alone

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[int]:
        return map(int, self._indices)


def current_rank() -> tuple[int, int]:
    """Return the rank of this process and the number of processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _buckets(widths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the bucket of each ascending length, and the longest length of that bucket."""
    uppers: list[int] = []
    start = 0
    while start < len(widths):
        largest = int(widths[start] * _BUCKET_GROWTH)
        start = int(np.searchsorted(widths, largest, side="right"))
        uppers.append(int(widths[start - 1]))
    bucket = np.searchsorted(np.asarray(uppers, dtype=np.int64), widths)
    return bucket, np.asarray(uppers, dtype=np.int64)[bucket]


def _cut(
    widths: NDArray[np.int64], max_tokens: int, max_sentences: int | None, ranks: int
) -> NDArray[np.int64]:
    """Return where each batch of the ascending ``widths`` begins, and the end of the last."""
    cuts = [0]
    while cuts[-1] < len(widths):
        start = cuts[-1]
        rows = _rows(int(widths[start]), max_tokens, max_sentences)
        rows = min(rows, -(-(len(widths) - start) // ranks))
        shares = np.arange(1, rows + 1)
        ends = np.minimum(start + ranks * shares, len(widths))
        fitting = max(1, int(np.count_nonzero(shares * widths[ends - 1] <= max_tokens)))
        cuts.append(int(ends[fitting - 1]))
    return np.asarray(cuts, dtype=np.int64)


def _rows(width: int, max_tokens: int, max_sentences: int | None) -> int:
    """Return how many rows of a width fit into a share; at least one is taken."""
    rows = max(1, max_tokens // max(1, width))
    return rows if max_sentences is None else min(rows, max_sentences)
