import math
from typing import get_args

import pytest
import torch
from test_recurrent_decoder import BATCH, TIME, VOCAB, decoder, memory
from torch import nn

from seq2seq.decoders.forcing import ForcingMethod, decode_target, teacher_forcing_ratio
from seq2seq.decoders.recurrent import Feed
from seq2seq.sequences import BOS_ID, EOS_ID, shift_right

TARGET = torch.tensor([[5, 6, 7, 8, EOS_ID], [9, 4, EOS_ID, 0, 0], [4, 10, 5, EOS_ID, 0]])


class Recorder(nn.Module):
    """Stands in front of an input layer and keeps what it was asked to embed."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.seen = []

    def forward(self, inputs):
        self.seen.append(inputs)
        return self.layer(inputs)


def recording_decoder(**options):
    model = decoder(**options)
    model.input_layer = Recorder(model.input_layer)
    return model, model.input_layer


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("constant", 500, 0.9),
        ("linear", 0, 0.9),
        ("linear", 50, 0.45),
        ("linear", 95, 0.1),
        ("exponential", 100, 0.9 / math.e),
        ("inverse_sigmoid", 0, 0.9 * 100 / 101),
        ("inverse_sigmoid", 460, 0.9 * 100 / (100 + math.exp(4.6))),
        ("inverse_sigmoid", 1_000_000, 0.1),
    ],
)
def test_schedules_follow_the_paper(schedule, step, expected):
    ratio = teacher_forcing_ratio(schedule, step, start=0.9, minimum=0.1, decay_steps=100)
    assert ratio == pytest.approx(expected)


def test_full_teacher_forcing_reads_the_shifted_target():
    model, recorder = recording_decoder()
    decode_target(model, TARGET, memory(), ratio=1.0)
    assert len(recorder.seen) == 1
    assert torch.equal(recorder.seen[0], shift_right(TARGET))


@pytest.mark.parametrize("method", get_args(ForcingMethod))
@pytest.mark.parametrize("feed", get_args(Feed))
def test_the_output_belongs_to_the_inputs_that_were_read(method, feed):
    model, recorder = recording_decoder(feed=feed)
    output = decode_target(model, TARGET, memory(), ratio=0.5, method=method, generator=generator())
    read = recorder.seen[-1] if method == "parallel" else torch.cat(recorder.seen, dim=1)
    assert read.shape == (BATCH, TIME)
    assert (read[:, 0] == BOS_ID).all()
    assert not torch.equal(read, shift_right(TARGET))
    torch.testing.assert_close(output.features, model(read, memory()).features)


@pytest.mark.parametrize("method", get_args(ForcingMethod))
def test_the_same_seed_makes_the_same_choices(method):
    def read(seed):
        model, recorder = recording_decoder()
        decode_target(model, TARGET, memory(), ratio=0.5, method=method, generator=generator(seed))
        return torch.cat(recorder.seen[-TIME if method == "step" else -1 :], dim=1)

    assert torch.equal(read(1), read(1))
    assert not torch.equal(read(1), read(2))


@pytest.mark.parametrize("method", get_args(ForcingMethod))
def test_the_ratio_is_the_share_of_target_tokens(method):
    model, recorder = recording_decoder()
    # Scores no token of the target highly, so that what was sampled can be told apart.
    model.output_layer.bias.data[3] = 50.0
    target = torch.full((BATCH, 200), 4)
    decode_target(model, target, memory(), ratio=0.7, method=method, generator=generator())
    read = torch.cat(recorder.seen[-200 if method == "step" else -1 :], dim=1)
    share = (read[:, 1:] == 4).double().mean()
    assert abs(share - 0.7) < 0.05
    assert set(read[:, 1:].unique().tolist()) == {3, 4}


def test_step_sampling_draws_from_the_decoders_own_distribution():
    model, recorder = recording_decoder()
    model.output_layer.weight.data.zero_()
    model.output_layer.bias.data = torch.full((VOCAB,), -50.0).double()
    model.output_layer.bias.data[[4, 5]] = torch.tensor([math.log(0.25), math.log(0.75)]).double()
    target = torch.full((BATCH, 400), 6)
    decode_target(model, target, memory(), ratio=0.0, method="step", generator=generator())
    read = torch.cat(recorder.seen, dim=1)[:, 1:]
    assert set(read.unique().tolist()) == {4, 5}
    assert abs((read == 5).double().mean() - 0.75) < 0.05


@pytest.mark.parametrize("method", get_args(ForcingMethod))
def test_no_gradient_flows_through_the_sampling(method):
    model, _ = recording_decoder()
    output = decode_target(model, TARGET, memory(), ratio=0.5, method=method, generator=generator())
    output.features.sum().backward()
    assert model.output_layer.weight.grad is None
