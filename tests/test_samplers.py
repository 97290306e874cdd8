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
@settings(max_examples=150, deadline=None)
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
    batches = {tuple(batch) for batch in chain(*dealt)}
    # Every index exactly once, apart from batches that were dealt again as a whole.
    assert sorted(chain(*batches)) == list(range(len(lengths)))
    assert sum(map(len, dealt)) - len(batches) < world_size
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or longest * len(batch) <= max_tokens
        assert max_sentences is None or len(batch) <= max_sentences


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


def test_evaluation_is_sorted_by_length():
    lengths = [LENGTHS[index] for batch in sampler(shuffle=False) for index in batch]
    assert lengths == sorted(LENGTHS)


def test_a_batch_dealt_again_is_one_of_the_first():
    ranks = [sampler([1] * 5, 1, shuffle=False, rank=rank, world_size=3) for rank in range(3)]
    counts = Counter(chain(*chain(*ranks)))
    assert counts == {0: 2, 1: 1, 2: 1, 3: 1, 4: 1}


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


def test_prediction_keeps_the_order():
    assert list(RankSampler(5)) == [0, 1, 2, 3, 4]
    assert len(RankSampler(5)) == 5
