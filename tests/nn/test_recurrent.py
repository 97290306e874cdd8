from typing import get_args

import pytest
import torch
from torch import nn

from seq2seq.errors import ConfigError
from seq2seq.nn.recurrent import Cell, RecurrentStack

CELLS = get_args(Cell)
REFERENCES = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
BATCH, TIME, INPUTS, HIDDEN = 3, 5, 4, 7


def stack(cell, **options):
    torch.manual_seed(1)
    return RecurrentStack(cell, INPUTS, HIDDEN, **options).double()


def sequences():
    return torch.randn(BATCH, TIME, INPUTS, dtype=torch.double)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_equals_torch_nn_of_the_same_depth(cell, bidirectional):
    ours = stack(cell, num_layers=2, bidirectional=bidirectional)
    theirs = REFERENCES[cell](
        INPUTS, HIDDEN, 2, batch_first=True, bidirectional=bidirectional
    ).double()
    for layer, module in enumerate(ours.layers):
        for name, parameter in module.named_parameters():
            getattr(theirs, name.replace("l0", f"l{layer}")).data = parameter.data
    inputs = sequences()
    outputs, state = ours(inputs)
    expected, expected_state = theirs(inputs)
    torch.testing.assert_close(outputs, expected)
    parts = expected_state if cell == "lstm" else (expected_state,)
    for part, expected_part in zip(state, parts, strict=True):
        torch.testing.assert_close(part, expected_part)


@pytest.mark.parametrize("cell", CELLS)
def test_whole_sequence_equals_steps_that_carry_the_state(cell):
    recurrent = stack(cell, num_layers=3, layer_norm=True)
    inputs = sequences()
    whole, last = recurrent(inputs)
    state, steps = None, []
    for position in range(TIME):
        output, state = recurrent(inputs[:, position : position + 1], state)
        steps.append(output)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_padding_and_batch_mates_change_nothing(cell, bidirectional, layer_norm):
    recurrent = stack(cell, num_layers=2, bidirectional=bidirectional, layer_norm=layer_norm)
    for name, parameter in recurrent.named_parameters():
        if name.startswith("norms"):
            nn.init.normal_(parameter)
    inputs, lengths = sequences(), torch.tensor([2, 5, 3])
    outputs, state = recurrent(inputs, lengths=lengths)
    for row, length in enumerate(lengths):
        alone, alone_state = recurrent(inputs[row : row + 1, :length])
        torch.testing.assert_close(outputs[row, :length], alone[0])
        assert not outputs[row, length:].any()
        for part, alone_part in zip(state, alone_state, strict=True):
            torch.testing.assert_close(part[:, row], alone_part[:, 0])


def test_context_reaches_every_layer():
    recurrent = stack("gru", num_layers=2, context_size=6)
    context = torch.randn(BATCH, 1, 6, dtype=torch.double, requires_grad=True)
    outputs, _ = recurrent(sequences(), context=context)
    assert outputs.shape == (BATCH, TIME, HIDDEN)
    assert [layer.input_size for layer in recurrent.layers] == [INPUTS + 6, HIDDEN + 6]
    outputs.sum().backward()
    assert context.grad.abs().min() > 0


def test_forget_gates_of_an_lstm_begin_open():
    bias = stack("lstm").layers[0].bias_ih_l0
    torch.testing.assert_close(bias.chunk(4)[1], torch.ones(HIDDEN, dtype=torch.double))
    assert not bias.chunk(4)[0].any()


def test_recurrent_matrices_begin_orthogonal():
    block = stack("gru").layers[0].weight_hh_l0.chunk(3)[1]
    identity = torch.eye(HIDDEN, dtype=torch.double)
    torch.testing.assert_close(block @ block.T, identity, rtol=0, atol=1e-5)


def test_an_unknown_cell_is_named():
    with pytest.raises(ConfigError, match="cell is 'sru'; choose one of rnn, gru, lstm"):
        stack("sru")


@pytest.mark.parametrize("cell", CELLS)
def test_dropped_recurrent_weights_are_gone_at_every_step_of_a_batch(cell):
    ours = stack(cell, bidirectional=True, recurrent_dropout=0.4).train()
    inputs = sequences()
    [layer] = ours.layers
    torch.manual_seed(3)
    outputs, _ = ours(inputs)
    outputs.sum().backward()
    for name, weight in layer.named_parameters():
        if "weight_hh" in name:
            # What is dropped at all steps has no gradient; the rest has, scaled up.
            is_dropped = weight.grad == 0
            assert 0.2 < is_dropped.double().mean() < 0.6
            weight.data = weight.data.masked_fill(is_dropped, 0) / 0.6
    torch.testing.assert_close(ours.eval()(inputs)[0], outputs)


def test_recurrent_weights_are_dropped_anew_for_every_batch_and_only_in_training():
    ours, inputs = stack("gru", num_layers=2, recurrent_dropout=0.3), sequences()
    assert not torch.equal(ours(inputs)[0], ours(inputs)[0])
    plain = stack("gru", num_layers=2)(inputs)[0]
    assert torch.equal(ours.eval()(inputs)[0], plain)


def test_dropped_recurrent_weights_leave_padding_alone():
    ours, inputs = stack("lstm", recurrent_dropout=0.5), sequences()
    lengths = torch.tensor([5, 2, 3])
    other = inputs.clone()
    other[1, 2:] = 9
    outputs = []
    for each in (inputs, other):
        torch.manual_seed(5)
        outputs.append(ours(each, lengths=lengths)[0])
    assert torch.equal(*outputs)
