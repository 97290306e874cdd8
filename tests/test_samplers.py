from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.samplers import BucketBatchSampler, RankSampler

LENGTHS = np.random.default_rng(2).integers(1, 40, 517)


def sampler(lengths=LENGTHS, max_tokens=120, **options):
    return BucketBatchSampler(np.asarray(lengths), max_tokens, **options)


cases = given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    max_tokens=st.integers(1, 130),
    max_sentences=st.none() | st.integers(1, 7),
    shuffle=st.booleans(),
    world_size=st.integers(1, 5),
    epoch=st.integers(0, 3),
)


@cases
@settings(max_examples=150)
def test_batches_keep_their_promises(
    lengths, max_tokens, max_sentences, shuffle, world_size, epoch
):
    ranks = [
        sampler(
            lengths,
            max_tokens,
            max_sentences=max_sentences,
            shuffle=shuffle,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    for each in ranks:
        each.set_epoch(epoch)
    dealt = [list(each) for each in ranks]
    assert {len(batches) for batches in dealt} == {len(ranks[0])}  # every rank has as many
    for share in chain(*dealt):
        assert share  # of every batch, every rank has something
        longest = max(lengths[index] for index in share)
        assert len(share) == 1 or longest * len(share) <= max_tokens
        assert max_sentences is None or len(share) <= max_sentences
    batches = [sorted({*chain(*shares)}) for shares in zip(*dealt, strict=True)]
    assert sorted(chain(*batches)) == list(range(len(lengths)))  # every index exactly once
    uneven = 0
    for batch, *shares in zip(batches, *dealt, strict=True):
        sizes = [*map(len, shares)]
        if len(batch) >= world_size:  # no two ranks have the same row
            assert sum(sizes) == len(batch)
            assert max(sizes) - min(sizes) <= 1
        uneven += len(batch) % world_size > 0
    assert uneven <= 1  # only the last of all


def test_a_sentence_over_the_budget_has_its_own_batch():
    assert [300] in [[LENGTHS_LONG[i] for i in batch] for batch in sampler(LENGTHS_LONG)]


LENGTHS_LONG = [5, 300, 7, 6, 5]


def test_epochs_differ_in_order_and_in_company_but_not_in_number():
    batches = sampler(max_tokens=200)
    first = list(batches)
    batches.set_epoch(1)
    second = list(batches)
    assert len(first) == len(second) == len(batches)
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}


def test_the_order_is_a_function_of_seed_and_epoch():
    jumped, walked = sampler(seed=3), sampler(seed=3)
    for epoch in range(3):
        walked.set_epoch(epoch)
        list(walked)
    jumped.set_epoch(2)
    assert list(jumped) == list(walked)
    assert list(sampler(seed=4)) != list(sampler(seed=3))


def test_a_second_pass_in_the_same_epoch_starts_again():
    batches = sampler()
    next(iter(batches))
    assert list(batches) == list(batches)


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    rows=st.integers(1, 6),
    shuffle=st.booleans(),
    world_size=st.integers(1, 5),
    epoch=st.integers(0, 3),
)
@settings(max_examples=100)
def test_the_ranks_together_see_what_one_with_all_their_rows_sees(
    lengths, rows, shuffle, world_size, epoch
):
    options = {"max_tokens": 10**6, "shuffle": shuffle}
    alone = sampler(lengths, max_sentences=rows * world_size, rank=0, world_size=1, **options)
    ranks = [
        sampler(lengths, max_sentences=rows, rank=rank, world_size=world_size, **options)
        for rank in range(world_size)
    ]
    for each in (alone, *ranks):
        each.set_epoch(epoch)
    for batch, *shares in zip(alone, *ranks, strict=True):
        assert {*chain(*shares)} == {*batch}


def test_no_row_weighs_more_where_there_are_fewer_than_ranks():
    ranks = [sampler([3, 4], rank=rank, world_size=5) for rank in range(5)]
    assert [[sorted(share) for share in each] for each in ranks] == 5 * [[[0, 1]]]
    # Not even two fit.
    ranks = [sampler([80, 70], rank=rank, world_size=5) for rank in range(5)]
    assert Counter(chain(*chain(*ranks))) == {1: 3, 0: 2}


def test_the_number_of_processes_may_change_in_the_middle_of_an_epoch():
    def rows_per_rank(rows, world_size):
        return [
            sampler(max_tokens=10**6, max_sentences=rows, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]

    def steps(ranks):
        return [{*chain(*shares)} for shares in zip(*ranks, strict=True)]

    [alone], pair = rows_per_rank(12, 1), rows_per_rank(6, 2)
    expected = steps([alone])
    alone.position = 5
    for each in pair:
        each.load_state_dict(alone.state_dict())
    assert steps(pair) == expected[5:]


def test_evaluation_is_sorted_by_length():
    lengths = [LENGTHS[index] for batch in sampler(shuffle=False) for index in batch]
    assert lengths == sorted(LENGTHS)


@pytest.mark.parametrize("world_size", [1, 2, 7])
def test_every_rank_has_as_much_to_do_and_how_much_is_reported(world_size):
    ranks = [sampler(rank=rank, world_size=world_size) for rank in range(world_size)]
    shares = [[LENGTHS[share] for share in each] for each in ranks]
    padded = np.array([[len(share) * max(share) for share in each] for each in shares])
    imbalance = padded.max(axis=0).sum() / padded.mean(axis=0).sum()
    assert ranks[0].imbalance == pytest.approx(imbalance)
    assert imbalance < 1.1
    real = sum(share.sum() for share in chain(*shares))
    assert ranks[0].padding_share == pytest.approx(1 - real / padded.sum())


def test_the_imbalance_is_that_of_the_steps_by_their_tokens():
    # Two rows and one; then three each, two each, and the last one that both ranks have.
    assert sampler([3, 3, 3], 6, rank=0, world_size=2).imbalance == pytest.approx(6 / 4.5)
    lengths = [2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 5]
    assert sampler(lengths, 6, rank=0, world_size=2).imbalance == 1
    # Steps of 6 + 6 and of 6 + 3 tokens.
    lengths = [2, 2, 2, 2, 2, 2, 3, 3, 3]
    assert sampler(lengths, 6, rank=1, world_size=2).imbalance == pytest.approx(12 / 10.5)


def test_padding_is_small_and_reported():
    batches = sampler(max_tokens=400)
    padded = sum(max(LENGTHS[batch]) * len(batch) for batch in batches)
    assert batches.padding_share == pytest.approx(1 - LENGTHS.sum() / padded)
    assert batches.padding_share < 0.15


def test_a_position_resumes_the_epoch():
    whole = sampler()
    whole.set_epoch(2)
    expected = list(whole)
    whole.position = 3
    resumed = sampler()
    resumed.load_state_dict(whole.state_dict())
    resumed.set_epoch(2)  # the loop says what the state has said
    assert list(resumed) == expected[3:]
    assert list(resumed) == expected  # only the first pass is cut short


def test_a_finished_epoch_resumes_at_the_next():
    finished = sampler()
    finished.position = len(finished)
    assert finished.state_dict()["epoch"] == 1
    resumed, fresh = sampler(), sampler()
    resumed.load_state_dict(finished.state_dict())
    fresh.set_epoch(1)
    assert list(resumed) == list(fresh)


def test_an_empty_epoch_after_resuming_is_not_skipped():
    resumed, fresh = sampler(), sampler()
    finished = sampler()
    finished.position = len(finished)
    resumed.load_state_dict(finished.state_dict())
    for counted, true in ((1, None), (2, 1), (3, 2)):
        resumed.set_epoch(counted)
        if true is not None:
            fresh.set_epoch(true)
            assert list(resumed) == list(fresh)
    # The next resumption knows that the loop counts one too many.
    resumed.position = 4
    again = sampler()
    again.load_state_dict(resumed.state_dict())
    again.set_epoch(3)
    assert list(again) == list(fresh)[4:]


def test_a_position_in_another_corpus_starts_the_epoch_again(caplog):
    whole = sampler()
    whole.position = 3
    resumed = sampler(LENGTHS[:100])
    resumed.load_state_dict(whole.state_dict())
    assert "epoch 0 starts again" in caplog.text
    assert len(list(resumed)) == len(resumed)


def test_no_example_is_no_batch():
    assert list(sampler([])) == []
    assert sampler([]).padding_share == 0.0
    assert sampler([]).imbalance == 1.0


def test_prediction_keeps_the_order():
    assert list(RankSampler(5)) == [0, 1, 2, 3, 4]
    assert len(RankSampler(5)) == 5


def test_prediction_leaves_out_what_it_is_told_to():
    sampler = RankSampler(7, np.array([5, 0, 1]))
    assert list(sampler) == [2, 3, 4, 6]
    assert len(sampler) == 4


def test_ranks_share_what_is_not_left_out(monkeypatch):
    shares = []
    for rank in range(3):
        monkeypatch.setattr("datamodules.samplers.current_rank", lambda rank=rank: (rank, 3))
        shares.append(list(RankSampler(7, np.array([0, 3]))))
    assert shares == [[1, 5], [2, 6], [4]]
