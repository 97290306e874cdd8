import pytest
import torch

from seq2seq.nn.dropout import SequenceDropout

BATCH, TIME, SIZE = 3, 5, 41


def test_variational_dropout_drops_the_same_values_at_every_step():
    dropped = SequenceDropout(0.5, is_variational=True)(torch.ones(BATCH, TIME, SIZE))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert (dropped == dropped[:, :1]).all()
    assert not (dropped[0] == dropped[1]).all()


def test_plain_dropout_drops_other_values_at_every_step():
    dropped = SequenceDropout(0.5)(torch.ones(BATCH, TIME, SIZE))
    assert not (dropped == dropped[:, :1]).all()


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.75])
def test_the_rate_is_the_share_of_zeros_and_the_mean_is_kept(rate):
    torch.manual_seed(1)
    dropped = SequenceDropout(rate)(torch.ones(7, 1000, SIZE))
    share = (dropped == 0).double().mean(dim=(0, 1))  # (SIZE,)
    # Standard deviation of the share over 7,000 draws: at most 0.006.
    torch.testing.assert_close(share, torch.full_like(share, rate), rtol=0, atol=0.03)
    assert abs(dropped.mean() - 1) < 0.01


def test_neighbouring_values_are_dropped_independently():
    torch.manual_seed(1)
    is_dropped = (SequenceDropout(0.5)(torch.ones(7, 1000, SIZE)) == 0).double().flatten()
    for distance in range(1, 9):
        together = (is_dropped[distance:] * is_dropped[:-distance]).mean()
        assert abs(together - 0.25) < 0.01


def test_the_gradient_is_that_of_the_values_kept():
    values = torch.randn(BATCH, TIME, SIZE, requires_grad=True)
    dropped = SequenceDropout(0.4)(values)
    dropped.sum().backward()
    torch.testing.assert_close(values.grad, (dropped != 0).float() / 0.6)


def test_the_seed_decides():
    def drop(seed):
        torch.manual_seed(seed)
        return SequenceDropout(0.5)(torch.ones(BATCH, TIME, SIZE))

    assert torch.equal(drop(1), drop(1))
    assert not torch.equal(drop(1), drop(2))


def test_dropout_does_nothing_in_evaluation():
    values = torch.ones(BATCH, TIME, SIZE)
    assert SequenceDropout(0.5).eval()(values) is values
