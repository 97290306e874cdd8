import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from seq2seq.averaging import WarmWeightAveraging


def averaged(decay, values):
    """Return the average after each of some values of one weight."""
    layer = nn.Linear(1, 1, bias=False)
    model = AveragedModel(layer, avg_fn=WarmWeightAveraging(decay)._average)
    averages = []
    for value in values:
        nn.init.constant_(layer.weight, value)
        model.update_parameters(layer)
        averages.append(model.module.weight.item())
    return averages


def test_the_average_begins_short_and_grows_to_its_decay():
    first, second, third = 0.0, 1.0, 3.0
    # The first is copied; then (1 + n) / (10 + n) of the average stays, n being 1 and 2.
    one = 2 / 11 * first + 9 / 11 * second
    two = 3 / 12 * one + 9 / 12 * third
    assert averaged(0.9, [first, second, third]) == pytest.approx([first, one, two])
    long = averaged(0.5, [0.0] * 30 + [1.0])
    assert long[-1] == pytest.approx(0.5)


def test_what_never_moves_stays_to_the_last_bit():
    torch.manual_seed(1)
    frozen = nn.BatchNorm1d(50)
    for tensor in (frozen.weight, frozen.running_mean):
        nn.init.normal_(tensor, std=3)
    model = AveragedModel(frozen, avg_fn=WarmWeightAveraging(0.997)._average, use_buffers=True)
    for _ in range(40):
        model.update_parameters(frozen)
    for name, value in frozen.state_dict().items():
        assert torch.equal(model.module.state_dict()[name], value), name
