"""The mean loss: each batch once, whatever rank had it."""

import copy
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed
from torch.multiprocessing.spawn import spawn

from seq2seq.metrics import CorpusLoss


class Seen(NamedTuple):
    mean: float
    tokens: int
    indices: list[int]


FIRST, SECOND, THIRD = Seen(2.5, 3, [4, 0]), Seen(0.5, 7, [2, 1]), Seen(4.0, 5, [3])
WHOLE = (2.5 * 3 + 0.5 * 7 + 4.0 * 5) / 15


def add(metric: CorpusLoss, *batches: Seen) -> CorpusLoss:
    for mean, tokens, indices in batches:
        metric.update(torch.tensor(mean), torch.tensor(tokens), torch.tensor(indices))
    return metric


def test_tokens_weigh_alike_in_batches_of_any_size() -> None:
    assert add(CorpusLoss(), FIRST, SECOND, THIRD).compute().item() == pytest.approx(WHOLE)


def test_a_batch_that_comes_again_counts_once() -> None:
    again = SECOND._replace(mean=9.0)
    metric = add(CorpusLoss(), FIRST, SECOND, THIRD, again, FIRST)
    assert metric.compute().item() == pytest.approx(WHOLE)


def test_large_indices_are_told_apart() -> None:
    metric = add(CorpusLoss(), *(Seen(mean, 1, [2**40 + int(mean)]) for mean in (1.0, 2.0, 6.0)))
    assert metric.compute().item() == 3


def test_batches_are_no_part_of_a_checkpoint_but_of_a_copy() -> None:
    metric = add(CorpusLoss(), FIRST, SECOND, THIRD)
    assert metric.state_dict() == {}
    assert copy.deepcopy(metric).compute() == metric.compute()
    metric.reset()
    assert add(metric, THIRD).compute() == 4


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric CorpusLoss was called before")
def test_without_a_batch_there_is_no_mean() -> None:
    assert CorpusLoss().compute().isnan()


def test_without_a_token_there_is_no_mean() -> None:
    nothing = Seen(0.0, 0, [7])
    assert add(CorpusLoss(), nothing).compute().isnan()
    assert add(CorpusLoss(), nothing, THIRD).compute() == 4


def mean_of_shares(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    metric = add(CorpusLoss(), *[(FIRST, THIRD), (SECOND, FIRST, FIRST)][rank])
    torch.save(metric.compute(), folder / f"mean_{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_mean_of_one(tmp_path: Path) -> None:
    spawn(mean_of_shares, args=(tmp_path,), nprocs=2)  # type: ignore[no-untyped-call]
    for rank in range(2):
        assert torch.load(tmp_path / f"mean_{rank}.pt").item() == pytest.approx(WHOLE)
