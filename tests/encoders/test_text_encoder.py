from typing import get_args

import pytest
import torch

from seq2seq.batches import TextInput
from seq2seq.encoders.text import TextEncoder
from seq2seq.nn.embedding import TokenEmbedding
from seq2seq.nn.pooling import PoolingKind
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
@pytest.mark.parametrize("pooling", get_args(PoolingKind))
def test_extra_padding_and_batch_mates_change_nothing(cell, bidirectional, pooling):
    model = encoder(cell=cell, num_layers=2, bidirectional=bidirectional, pooling=pooling)
    memory = model(text(ROWS, width=6))
    assert memory.values.shape == (3, 6, model.memory_size)
    for row, tokens in enumerate(ROWS):
        alone = model(text([tokens]))
        torch.testing.assert_close(memory.values[row, : len(tokens)], alone.values[0])
        torch.testing.assert_close(memory.summary[row], alone.summary[0])
        assert memory.mask[row].tolist() == [place < len(tokens) for place in range(6)]


@pytest.mark.parametrize("cell", get_args(Cell))
@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_summary_is_the_last_output_of_each_direction(cell, layer_norm):
    model = encoder(cell=cell, num_layers=2, bidirectional=True, layer_norm=layer_norm)
    memory = model(text(ROWS, width=6))
    for row, tokens in enumerate(ROWS):
        forward, backward = memory.summary[row].split(HIDDEN)
        torch.testing.assert_close(forward, memory.values[row, len(tokens) - 1, :HIDDEN])
        torch.testing.assert_close(backward, memory.values[row, 0, HIDDEN:])


@pytest.mark.parametrize("cell", get_args(Cell))
@pytest.mark.parametrize("bidirectional", [False, True])
def test_without_a_norm_the_summary_is_the_top_layers_last_state(cell, bidirectional):
    model, inputs = encoder(cell=cell, num_layers=2, bidirectional=bidirectional), text(ROWS)
    _, (hidden, *_) = model.recurrent(model.embedding(inputs.tokens), lengths=inputs.lengths)
    top = hidden[-model.recurrent.directions :]
    assert torch.equal(model(inputs).summary, torch.cat(list(top), dim=-1))


@pytest.mark.parametrize(("pooling", "pool"), [("mean", torch.mean), ("max", torch.amax)])
def test_the_summary_is_the_mean_or_the_maximum_of_the_real_positions(pooling, pool):
    memory = encoder(pooling=pooling, layer_norm=True)(text(ROWS, width=6))
    for row, tokens in enumerate(ROWS):
        expected = pool(memory.values[row, : len(tokens)], dim=0)
        torch.testing.assert_close(memory.summary[row], expected)


def test_the_summary_is_a_mean_weighted_by_a_learned_query():
    model = encoder(pooling="attention")
    memory = model(text(ROWS, width=6))
    weights = model.pooling.weigh(memory.values, memory.mask)
    assert torch.equal(weights > 0, memory.mask)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3).double())
    for row in range(3):
        expected = sum(weights[row, place] * memory.values[row, place] for place in range(6))
        torch.testing.assert_close(memory.summary[row], expected)
    with torch.no_grad():
        model.pooling.query.weight.zero_()
    torch.testing.assert_close(
        model(text(ROWS)).summary, encoder(pooling="mean")(text(ROWS)).summary
    )


def test_dropout_on_the_summary_is_for_training_alone_and_spares_the_values():
    model = encoder(pooling="mean", summary_dropout=0.5)
    exact = model(text(ROWS))
    dropped = model.train()(text(ROWS))
    assert torch.equal(dropped.values, exact.values)
    is_kept = dropped.summary != 0
    assert 0 < is_kept.sum() < is_kept.numel()
    torch.testing.assert_close(dropped.summary[is_kept], 2 * exact.summary[is_kept])


@pytest.mark.parametrize("pooling", get_args(PoolingKind))
def test_every_parameter_gets_a_gradient(pooling):
    model = encoder(num_layers=2, layer_norm=True, pooling=pooling)
    # The summary is all that a decoder without attention reads.
    weights = torch.randn(model.memory_size, dtype=torch.double)
    (model(text(ROWS)).summary @ weights).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
