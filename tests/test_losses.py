import pytest
import torch
from torch import nn
from torch.nn import functional

from seq2seq import losses
from seq2seq.losses import sequence_cross_entropy

BATCH, TIME, FEATURES, VOCAB = 3, 5, 4, 11
TARGET = torch.tensor([[4, 5, 6, 7, 3], [8, 3, 0, 0, 0], [9, 10, 3, 0, 0]])


def setting(bias=True):
    torch.manual_seed(1)
    layer = nn.Linear(FEATURES, VOCAB, bias=bias).double()
    features = torch.randn(BATCH, TIME, FEATURES).double().requires_grad_()
    return layer, features


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk_scores", [1, 2 * VOCAB, 10**6])
def test_equals_torch_in_value_and_gradient(monkeypatch, bias, smoothing, chunk_scores):
    monkeypatch.setitem(losses._CHUNK_SCORES, "cpu", chunk_scores)
    layer, features = setting(bias)
    loss = sequence_cross_entropy(layer, features, TARGET, smoothing)
    (3 * loss.total).backward()
    ours = [features.grad, *(parameter.grad for parameter in layer.parameters())]

    layer, features = setting(bias)
    expected = functional.cross_entropy(
        layer(features).flatten(0, 1),
        TARGET.flatten(),
        ignore_index=0,
        label_smoothing=smoothing,
        reduction="sum",
    )
    (3 * expected).backward()
    theirs = [features.grad, *(parameter.grad for parameter in layer.parameters())]
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(ours, theirs)


def test_the_likelihood_is_reported_without_smoothing():
    layer, features = setting()
    smoothed = sequence_cross_entropy(layer, features, TARGET, 0.1)
    plain = sequence_cross_entropy(layer, features, TARGET)
    torch.testing.assert_close(smoothed.negative_log_likelihood, plain.total)
    assert smoothed.tokens == 10
    assert not plain.negative_log_likelihood.requires_grad


def test_padding_changes_nothing():
    layer, features = setting()
    loss = sequence_cross_entropy(layer, features, TARGET)
    loss.total.backward()
    assert not features.grad[TARGET == 0].any()
    noisy = torch.where((TARGET == 0).unsqueeze(2), 1e4, features.detach())
    torch.testing.assert_close(sequence_cross_entropy(layer, noisy, TARGET).total, loss.total)


def test_the_gradient_passes_gradcheck():
    layer, features = setting()

    def total(features, weight, bias):
        layer.weight.data, layer.bias.data = weight, bias
        return losses._LinearCrossEntropy.apply(
            features[TARGET != 0], weight, bias, TARGET[TARGET != 0], 0.1, True
        )[0]

    inputs = (
        features,
        layer.weight.detach().clone().requires_grad_(),
        layer.bias.detach().clone().requires_grad_(),
    )
    assert torch.autograd.gradcheck(total, inputs)


def test_no_gradient_is_computed_where_none_is_wanted(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a gradient was computed")

    layer, features = setting()
    expected = sequence_cross_entropy(layer, features, TARGET)
    monkeypatch.setattr(torch, "mm", refuse)
    with pytest.raises(AssertionError):
        sequence_cross_entropy(layer, features, TARGET)
    with torch.no_grad():
        torch.testing.assert_close(sequence_cross_entropy(layer, features, TARGET), expected)


def test_mixed_precision_keeps_the_loss_and_its_gradient_close():
    layer, features = setting()
    layer, features = layer.float(), features.detach().float().requires_grad_()
    exact = sequence_cross_entropy(layer, features, TARGET, 0.1)
    exact.total.backward()
    expected = layer.weight.grad.clone()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = sequence_cross_entropy(layer, features, TARGET, 0.1)
    mixed.total.backward()
    assert layer.weight.grad.dtype == torch.float32
    torch.testing.assert_close(mixed.total, exact.total, rtol=0.01, atol=0.01)
    torch.testing.assert_close(layer.weight.grad, expected, rtol=0.05, atol=0.05)
