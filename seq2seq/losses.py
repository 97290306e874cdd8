"""Losses over the real positions of padded sequences."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

from seq2seq.sequences import PAD_ID

# Scores of one chunk: small enough for the last cache of a CPU, large enough to fill a GPU.
_CHUNK_SCORES = {"cpu": 2**20, "cuda": 2**26}


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
    )
    return SequenceLoss(total, nll.detach(), is_real.sum())


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
    ) -> tuple[Tensor, Tensor]:
        device = features.device.type
        is_mixed = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if is_mixed else weight.dtype
        with torch.autocast(device, enabled=False):
            return _chunked_cross_entropy(
                ctx, features.to(dtype), weight, bias, labels, label_smoothing
            )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, _grad_nll: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (
            None if gradient is None else gradient * grad_total for gradient in ctx.saved_tensors
        )
        return (*gradients, None, None)


def _chunked_cross_entropy(
    ctx: FunctionCtx,
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    label_smoothing: float,
) -> tuple[Tensor, Tensor]:
    """Compute both sums, and leave the gradients of the first in ``ctx``."""
    needs_gradient = any(ctx.needs_input_grad[:3])  # type: ignore[attr-defined]
    vocab = len(weight)
    cast_weight = weight.to(features.dtype)
    cast_bias = None if bias is None else bias.to(features.dtype)
    sums = torch.zeros(
        2, device=features.device, dtype=torch.promote_types(weight.dtype, torch.float32)
    )
    if needs_gradient:
        grad_features = torch.empty_like(features)
        grad_weight = torch.zeros_like(weight)
        grad_bias = None if bias is None else torch.zeros_like(bias)
    rows = max(1, _CHUNK_SCORES.get(features.device.type, 2**26) // vocab)
    for start in range(0, len(features), rows):
        here = slice(start, start + rows)
        label = labels[here].unsqueeze(1)
        scores = functional.linear(features[here], cast_weight, cast_bias).to(sums.dtype)
        normaliser = scores.logsumexp(dim=-1, keepdim=True)  # (rows, 1)
        nll = (normaliser - scores.gather(1, label)).sum()
        uniform = (normaliser.sum() - scores.sum() / vocab) if label_smoothing else nll
        sums += torch.stack([(1 - label_smoothing) * nll + label_smoothing * uniform, nll])
        if not needs_gradient:
            continue
        gradient = scores.sub_(normaliser).exp_()  # softmax, in the place of the scores
        if label_smoothing:
            gradient -= label_smoothing / vocab
        gradient.scatter_add_(1, label, torch.full_like(normaliser, label_smoothing - 1))
        if grad_bias is not None:
            grad_bias += gradient.sum(dim=0)
        gradient = gradient.to(features.dtype)
        torch.mm(gradient, cast_weight, out=grad_features[here])
        if gradient.dtype == grad_weight.dtype:
            grad_weight.addmm_(gradient.t(), features[here])
        else:
            grad_weight += gradient.t() @ features[here]
    if needs_gradient:
        ctx.save_for_backward(grad_features, grad_weight, grad_bias)  # type: ignore[arg-type]
    return sums[0], sums[1]
