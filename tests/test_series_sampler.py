from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.series_sampler import ChunkBatchSampler


def sampler(rows=7, chunks=5, batch_size=3, **options):
    return ChunkBatchSampler(rows, chunks, batch_size, **options)


def parts(batch, chunks=5):
    """Return the rows of a batch, and the one chunk that it has of all of them."""
    rows, numbers = zip(*(divmod(index, chunks) for index in batch), strict=True)
    (number,) = set(numbers)
    return list(rows), number


@given(
    rows=st.integers(1, 20),
    chunks=st.integers(1, 6),
    batch_size=st.integers(1, 8),
    world_size=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
@settings(max_examples=100)
def test_rows_go_through_all_chunks_on_every_rank(rows, chunks, batch_size, world_size, epoch):
    ranks = [
        sampler(rows, chunks, batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for each in ranks:
        each.set_epoch(epoch)
    dealt = [list(each) for each in ranks]
    assert {len(batches) for batches in dealt} == {len(ranks[0])}
    for batches in dealt:
        for start in range(0, len(batches), chunks):
            group = [parts(batch, chunks) for batch in batches[start : start + chunks]]
            assert [number for _, number in group] == list(range(chunks))
            assert all(rows == group[0][0] for rows, _ in group)
    # Each index once, or again on other ranks where a group has fewer rows than there are ranks.
    steps = [{*chain(*shares)} for shares in zip(*dealt, strict=True)]
    assert sorted(chain(*steps)) == list(range(rows * chunks))


def test_epochs_differ_in_order_and_are_a_function_of_the_seed():
    jumped, walked = sampler(seed=3), sampler(seed=3)
    first = list(walked)
    walked.set_epoch(1)
    second = list(walked)
    assert first != second
    jumped.set_epoch(1)
    assert list(jumped) == second
    assert list(sampler(seed=4)) != first


@pytest.mark.parametrize("position", [1, 5, 7, 14])
def test_a_position_resumes_in_the_midst_of_a_group(position):
    whole = sampler()
    whole.set_epoch(2)
    expected = list(whole)
    assert len(expected) == len(whole) == 15
    whole.position = position
    resumed = sampler()
    resumed.load_state_dict(whole.state_dict())
    resumed.set_epoch(2)
    assert list(resumed) == expected[position:]
    assert list(resumed) == expected


def test_a_finished_epoch_resumes_at_the_next():
    finished, resumed, fresh = sampler(), sampler(), sampler()
    finished.position = len(finished)
    resumed.load_state_dict(finished.state_dict())
    fresh.set_epoch(1)
    assert list(resumed) == list(fresh)


def test_other_chunks_start_the_epoch_again(caplog):
    whole = sampler()
    whole.position = 4
    resumed = sampler(chunks=2)
    resumed.load_state_dict(whole.state_dict())
    assert "epoch 0 starts again" in caplog.text
    assert len(list(resumed)) == 6
