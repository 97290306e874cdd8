from itertools import chain

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.shard_sampler import ShardBatchSampler

SHARDS = np.repeat(np.arange(12), 64)
LENGTHS = np.random.default_rng(3).integers(1, 30, len(SHARDS))


def sampler(window=3, batch_size=2, **options):
    return ShardBatchSampler(LENGTHS, SHARDS, window, batch_size, **options)


@given(
    shards=st.lists(st.integers(0, 6), min_size=1, max_size=60),
    window=st.integers(1, 4),
    batch_size=st.integers(1, 5),
    shuffle=st.booleans(),
    world_size=st.integers(1, 4),
    epoch=st.integers(0, 2),
)
@settings(max_examples=100)
def test_every_sample_comes_once_and_every_rank_has_as_many_batches(
    shards, window, batch_size, shuffle, world_size, epoch
):
    lengths = np.arange(len(shards)) % 7 + 1
    ranks = [
        ShardBatchSampler(
            lengths, np.array(shards), window, batch_size, shuffle, rank=rank, world_size=world_size
        )
        for rank in range(world_size)
    ]
    for each in ranks:
        each.set_epoch(epoch)
    dealt = [list(each) for each in ranks]
    assert {len(batches) for batches in dealt} == {len(ranks[0])}
    batches = [{*chain(*shares)} for shares in zip(*dealt, strict=True)]
    assert sorted(chain(*batches)) == list(range(len(shards)))
    assert sorted(map(len, batches))[1:] == [batch_size * world_size] * (len(batches) - 1)


def test_the_ranks_together_see_what_one_with_all_their_rows_sees():
    one = [{*batch} for batch in sampler(batch_size=6)]
    three = [sampler(batch_size=2, rank=rank, world_size=3) for rank in range(3)]
    assert [{*chain(*shares)} for shares in zip(*three, strict=True)] == one


def test_few_shards_are_in_use_at_a_time():
    for window, shuffle in ((1, True), (3, True), (1, False)):
        shards = [SHARDS[batch] for batch in sampler(window, shuffle=shuffle)]
        times = {
            shard: [time for time, used in enumerate(shards) if shard in used]
            for shard in range(12)
        }
        in_use = [
            sum(used[0] <= time <= used[-1] for used in times.values())
            for time in range(len(shards))
        ]
        # Those of a window, the next one, and one more where batches are put together by length.
        assert max(in_use) <= (window + 2 if shuffle else 2)


def test_a_window_is_mixed():
    batches = np.array(list(sampler(window=6, batch_size=8)))
    middle = SHARDS[batches[len(batches) // 3 : -len(batches) // 3]]
    assert np.mean([len(set(batch)) for batch in middle]) > 3


def test_lengths_of_a_batch_are_alike():
    spread = np.mean([np.ptp(LENGTHS[batch]) for batch in sampler(batch_size=4)])
    assert spread < 3
    assert sampler(batch_size=4).padding_share < 0.15


def test_every_epoch_and_seed_has_an_order_of_its_own():
    def order(epoch, **options):
        batches = sampler(**options)
        batches.set_epoch(epoch)
        return list(batches)

    assert order(1) == order(1)
    assert order(1) != order(0)
    assert order(1) != order(1, seed=2)
    assert order(1, shuffle=False) == order(0, shuffle=False)


def test_a_run_goes_on_in_the_middle_of_an_epoch():
    whole = sampler(rank=1, world_size=3)
    whole.set_epoch(4)
    expected = list(whole)
    whole.position = 7
    again = sampler(rank=1, world_size=3)
    again.load_state_dict(whole.state_dict())
    again.set_epoch(4)
    assert list(again) == expected[7:]
