from typing import get_args

import pytest
import torch

from seq2seq.batches import TextInput
from seq2seq.encoders.text import TextEncoder
from seq2seq.nn.embedding import TokenEmbedding
from seq2seq.nn.recurrent import Cell

ROWS = [[5, 6, 7, 3], [8, 3], [3]]
HIDDEN = 7


def encoder(**options):
    torch.manual_seed(1)
    return TextEncoder(TokenEmbedding(11, 6), HIDDEN, **options).double().eval()


def text(rows, width=None):
    width = width or max(map(len, rows))
    padded = [row + [0] * (width - len(row)) for row in rows]
    return TextInput(torch.tensor(padded), torch.tensor([len(row) for row in rows]))


@pytest.mark.parametrize("cell", get_args(Cell))
@pytest.mark.parametrize("bidirectional", [False, True])
def test_extra_padding_and_batch_mates_change_nothing(cell, bidirectional):
    model = encoder(cell=cell, num_layers=2, bidirectional=bidirectional)
    memory = model(text(ROWS, width=6))
    assert memory.values.shape == (3, 6, model.memory_size)
    for row, tokens in enumerate(ROWS):
        alone = model(text([tokens]))
        torch.testing.assert_close(memory.values[row, : len(tokens)], alone.values[0])
        torch.testing.assert_close(memory.summary[row], alone.summary[0])
        assert memory.mask[row].tolist() == [place < len(tokens) for place in range(6)]


def test_the_summary_is_the_last_state_of_each_direction():
    model = encoder(num_layers=2, bidirectional=True)
    memory = model(text(ROWS))
    for row, tokens in enumerate(ROWS):
        forward, backward = memory.summary[row].split(HIDDEN)
        torch.testing.assert_close(forward, memory.values[row, len(tokens) - 1, :HIDDEN])
        torch.testing.assert_close(backward, memory.values[row, 0, HIDDEN:])


def test_every_parameter_gets_a_gradient():
    model = encoder(num_layers=2, layer_norm=True)
    memory = model(text(ROWS))
    (memory.values.square().sum() + memory.summary.square().sum()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
