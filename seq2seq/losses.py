"""Losses over the real positions of padded sequences."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

from seq2seq.sequences import PAD_ID

# Scores of one chunk: small enough for the last cache of a CPU, large enough to fill a GPU.
_CHUNK_SCORES = {"cpu": 2**22, "cuda": 2**26}


class SequenceLoss(NamedTuple):
    """Sums over the real tokens of a batch, so that batches of any size can be added up.

    Attributes:
        total: Training loss, with label smoothing; a scalar with gradient.
        negative_log_likelihood: The same without label smoothing, a scalar without gradient.
        tokens: Number of real tokens, a scalar.
    """

    total: Tensor
    negative_log_likelihood: Tensor
    tokens: Tensor


def sequence_cross_entropy(
    output_layer: nn.Linear, features: Tensor, target: Tensor, label_smoothing: float = 0.0
) -> SequenceLoss:
    """Score the real positions and sum their cross-entropy.

    Scores and their gradient are computed together, a chunk of tokens at a time, so that the
    ``(tokens, vocab)`` matrix is never held whole nor read more often than needed.

    Args:
        output_layer: Maps features to scores ``(..., vocab)``.
        features: ``(batch, time, feature_size)``.
        target: Ids padded with ``PAD_ID``, int64 ``(batch, time)``.
        label_smoothing: Share of the probability that is spread over the whole vocabulary.

    Source: label smoothing as Szegedy et al. 2016, arXiv:1512.00567, section 7.
    """
    is_real = target != PAD_ID
    total, nll = _LinearCrossEntropy.apply(
        features[is_real],
        output_layer.weight,
        output_layer.bias,
        target[is_real],
        label_smoothing,
        torch.is_grad_enabled(),  # which autograd always turns off inside a function's forward
    )
    return SequenceLoss(total, nll.detach(), is_real.sum())


def sequence_log_likelihood(
    output_layer: nn.Linear, features: Tensor, target: Tensor, temperature: float = 1.0
) -> Tensor:
    """Return the log-probability of each row's real tokens together, ``(batch,)``.

    For losses that weigh rows; ``sequence_cross_entropy`` is the quicker one where all weigh alike.

    Args:
        output_layer: Maps features to scores ``(..., vocab)``.
        features: ``(batch, time, feature_size)``.
        target: Ids padded with ``PAD_ID``, int64 ``(batch, time)``.
        temperature: Divides the scores, as in sampling.
    """
    is_real = target != PAD_ID
    scores = output_layer(features[is_real]).float() / temperature
    nll = functional.cross_entropy(scores, target[is_real], reduction="none")
    rows = is_real.nonzero()[:, 0]
    return nll.new_zeros(len(target)).index_add(0, rows, -nll)


def attention_penalty(attention: Tensor, target: Tensor) -> Tensor:
    """Return how unevenly attention was spread over the whole output, summed over a batch.

    That is ``(1 - total attention)`` squared, summed over positions and rows: the doubly
    stochastic term.

    Args:
        attention: Weights ``(batch, time, source)``.
        target: Ids padded with ``PAD_ID``, int64 ``(batch, time)``.

    Source: Xu et al. 2015, arXiv:1502.03044, equation 14.
    """
    is_real = (target != PAD_ID).unsqueeze(2)
    received = (attention.float() * is_real).sum(dim=1)  # (batch, source)
    return (1 - received).square().sum()


class _LinearCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of a linear layer; the gradient is ready when the loss is."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        label_smoothing: float,
        is_grad_enabled: bool,
    ) -> tuple[Tensor, Tensor]:
        needs_gradient = is_grad_enabled and any(ctx.needs_input_grad[:3])
        device = features.device.type
        is_mixed = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if is_mixed else weight.dtype
        with torch.autocast(device, enabled=False):
            return _chunked_cross_entropy(
                ctx, features.to(dtype), weight, bias, labels, label_smoothing, needs_gradient
            )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, _grad_nll: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (
            None if gradient is None else gradient * grad_total for gradient in ctx.saved_tensors
        )
        return (*gradients, None, None, None)


def _chunked_cross_entropy(
    ctx: FunctionCtx,
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    label_smoothing: float,
    needs_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Compute both sums and, if asked to, leave the gradients of the first in ``ctx``."""
    vocab, count = len(weight), len(features)
    share = label_smoothing / vocab  # of the target probability, for each token of the vocabulary
    cast_weight = weight.to(features.dtype)
    cast_bias = None if bias is None else bias.to(features.dtype)
    precise = torch.promote_types(weight.dtype, torch.float32)
    sums = torch.zeros(2, device=features.device, dtype=precise)
    if needs_gradient:
        grad_features = torch.empty_like(features)
        grad_weight = torch.zeros_like(weight)
        grad_scores = torch.zeros(vocab, device=features.device, dtype=precise)
    rows = max(1, _CHUNK_SCORES.get(features.device.type, 2**26) // vocab)
    for start in range(0, count, rows):
        here = slice(start, start + rows)
        label = labels[here].unsqueeze(1)
        scores = functional.linear(features[here], cast_weight, cast_bias).to(precise)
        gradient = scores.softmax(dim=-1)
        # The likeliest token has probability exp(its score - normaliser), which cannot underflow.
        normaliser = scores.amax(dim=-1) - gradient.amax(dim=-1).log()
        nll = (normaliser - scores.gather(1, label).squeeze(1)).sum()
        total = (1 - label_smoothing) * nll
        if label_smoothing:
            total = total + label_smoothing * normaliser.sum() - share * scores.sum()
        sums += torch.stack([total, nll])
        if not needs_gradient:
            continue
        # The gradient of the scores is softmax - (1 - smoothing) one-hot - share; the last term is
        # the same everywhere and comes after the loop, without another pass over the scores.
        taken = torch.full_like(normaliser, label_smoothing - 1).unsqueeze(1)
        gradient.scatter_add_(1, label, taken)
        grad_scores += gradient.sum(dim=0)
        gradient = gradient.to(features.dtype)
        torch.mm(gradient, cast_weight, out=grad_features[here])
        if gradient.dtype == grad_weight.dtype:
            grad_weight.addmm_(gradient.t(), features[here])
        else:
            grad_weight += gradient.t() @ features[here]
    if needs_gradient:
        if label_smoothing:
            grad_features -= share * cast_weight.sum(dim=0)
            grad_weight -= share * features.sum(dim=0)
            grad_scores -= share * count
        grad_bias = None if bias is None else grad_scores.to(bias.dtype)
        ctx.save_for_backward(grad_features, grad_weight, grad_bias)  # type: ignore[arg-type]
    return sums[0], sums[1]
