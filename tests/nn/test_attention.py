import pytest
import torch

from seq2seq.batches import Memory
from seq2seq.errors import ConfigError
from seq2seq.nn.attention import ATTENTIONS, build_attention

BATCH, TIME, SOURCE, SIZE = 3, 4, 5, 6
KINDS = list(ATTENTIONS)


def memory(lengths=(5, 2, 3), seed=1):
    torch.manual_seed(seed)
    values = torch.randn(BATCH, SOURCE, SIZE)
    mask = torch.arange(SOURCE) < torch.tensor(lengths).unsqueeze(1)
    return Memory(values, mask, values.mean(dim=1))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_a_distribution_over_real_positions(kind):
    source = memory()
    context, weights = build_attention(kind, SIZE, SIZE)(torch.randn(BATCH, TIME, SIZE), source)
    assert context.shape == (BATCH, TIME, SIZE)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(BATCH, TIME))
    assert not weights.masked_select(~source.mask.unsqueeze(1).expand_as(weights)).any()
    torch.testing.assert_close(context, torch.einsum("bts,bsm->btm", weights, source.values))


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_on_padding_changes_nothing(kind):
    attention, query, source = (
        build_attention(kind, SIZE, SIZE),
        torch.randn(BATCH, TIME, SIZE),
        memory(),
    )
    noisy = source._replace(
        values=torch.where(source.mask.unsqueeze(2), source.values, torch.full((), 1e4))
    )
    torch.testing.assert_close(attention(query, noisy)[0], attention(query, source)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_keys_computed_once_give_the_same(kind):
    attention, query, source = (
        build_attention(kind, SIZE, SIZE),
        torch.randn(BATCH, TIME, SIZE),
        memory(),
    )
    prepared = source._replace(keys=attention.keys(source.values))
    torch.testing.assert_close(attention(query, prepared), attention(query, source))


@pytest.mark.parametrize("kind", ["bilinear", "additive"])
def test_every_parameter_gets_a_gradient(kind):
    attention = build_attention(kind, SIZE, SIZE)
    attention(torch.randn(BATCH, TIME, SIZE), memory())[0].square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in attention.parameters())


def test_dot_scores_are_inner_products():
    source, query = memory(lengths=(5, 5, 5)), torch.randn(BATCH, TIME, SIZE)
    _, weights = build_attention("dot", SIZE, SIZE)(query, source)
    expected = torch.einsum("btm,bsm->bts", query, source.values).softmax(dim=-1)
    torch.testing.assert_close(weights, expected)


def test_additive_scores_follow_the_paper():
    attention, source, query = (
        build_attention("additive", 7, SIZE),
        memory((5, 5, 5)),
        torch.randn(BATCH, 1, 7),
    )
    _, weights = attention(query, source)
    first = attention.query.weight @ query[0, 0] + attention.query.bias
    scores = torch.stack(
        [
            attention.weight.weight[0] @ torch.tanh(first + attention.key.weight @ value)
            for value in source.values[0]
        ]
    )
    torch.testing.assert_close(weights[0, 0], scores.softmax(dim=0))


def test_dot_attention_needs_equal_widths():
    with pytest.raises(ConfigError, match=r"\(7 wide\) with the memory \(6 wide\).*bilinear"):
        build_attention("dot", 7, SIZE)


def test_none_is_no_attention():
    assert build_attention("none", 7, SIZE) is None


def test_an_unknown_attention_is_named():
    with pytest.raises(ConfigError, match="attention is 'cosine'; choose one of none, dot"):
        build_attention("cosine", SIZE, SIZE)
