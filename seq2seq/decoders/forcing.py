"""Teacher forcing and scheduled sampling: what the decoder reads while it learns."""

from collections.abc import Callable
from math import exp
from typing import Literal

import torch
from torch import Tensor

from seq2seq.batches import Memory
from seq2seq.decoders.base import Decoder, DecoderOutput
from seq2seq.sequences import shift_right

ForcingSchedule = Literal["constant", "linear", "exponential", "inverse_sigmoid"]
ForcingMethod = Literal["parallel", "step"]

_DECAYS: dict[str, Callable[[int, float], float]] = {
    "constant": lambda _step, _decay_steps: 1.0,
    "linear": lambda step, decay_steps: max(0.0, 1 - step / decay_steps),
    "exponential": lambda step, decay_steps: exp(-step / decay_steps),
    # Written with a negative exponent, which cannot overflow.
    "inverse_sigmoid": lambda step, decay_steps: (
        decay_steps * exp(-step / decay_steps) / (decay_steps * exp(-step / decay_steps) + 1)
    ),
}


def teacher_forcing_ratio(
    schedule: ForcingSchedule, step: int, *, start: float, minimum: float, decay_steps: float
) -> float:
    """Return the share of decoder inputs that come from the target at a training step.

    Args:
        schedule: ``constant`` stays at ``start``; ``linear`` falls to nothing in ``decay_steps``;
            ``exponential`` falls by a factor e in ``decay_steps``; ``inverse_sigmoid`` stays high
            for about ``k log k`` steps and then falls, where k is ``decay_steps``.
        step: Optimiser steps done so far.
        start: Ratio before decay.
        minimum: Ratio below which no schedule falls.
        decay_steps: How slowly the ratio falls, in optimiser steps.

    Source: Bengio et al. 2015, arXiv:1506.03099, section 2.4.
    """
    return max(minimum, start * _DECAYS[schedule](step, decay_steps))


def decode_target(
    decoder: Decoder,
    target: Tensor,
    memory: Memory,
    *,
    ratio: float = 1.0,
    method: ForcingMethod = "parallel",
    generator: torch.Generator | None = None,
) -> DecoderOutput:
    """Run the decoder along a target, reading the target or its own samples, token by token.

    Args:
        decoder: Any decoder over tokens.
        target: Ids ending in ``EOS_ID`` and padded, int64 ``(batch, time)``.
        memory: Encoder output of the same rows.
        ratio: Probability that an input is the target's; with 1 nothing is sampled.
        method: ``step`` samples from what the decoder really read before; ``parallel`` samples
            from a first pass that read the target, which is two whole-sequence passes and much
            faster (Mihaylova and Martins 2019, arXiv:1906.07651, section 3.1).
        generator: Source of the random choices, on the target's device.
    """
    inputs = shift_right(target)
    if ratio >= 1:
        return decoder(inputs, memory)  # type: ignore[no-any-return]  # nn.Module.__call__
    chances = torch.rand(target.shape, device=target.device, generator=generator)
    is_sampled = chances >= ratio
    is_sampled[:, 0] = False  # the first input is always BOS
    memory = decoder.prepare(memory)
    if method == "parallel":
        with torch.no_grad():
            features = decoder(inputs, memory).features
            is_needed = is_sampled.roll(-1, dims=1)  # an input is sampled one position earlier
            sampled = _sample(decoder, features[is_needed], generator)
        return decoder(inputs.masked_scatter(is_sampled, sampled), memory)  # type: ignore[no-any-return]
    return _decode_by_step(decoder, inputs, is_sampled, memory, generator)


def _decode_by_step(
    decoder: Decoder,
    inputs: Tensor,
    is_sampled: Tensor,
    memory: Memory,
    generator: torch.Generator | None,
) -> DecoderOutput:
    state = decoder.init_state(memory)
    token = inputs[:, :1]
    features: list[Tensor] = []
    attentions: list[Tensor] = []
    for position in range(inputs.shape[1]):
        if position:
            with torch.no_grad():
                sampled = _sample(decoder, features[-1][:, 0], generator).unsqueeze(1)
            here = slice(position, position + 1)
            token = torch.where(is_sampled[:, here], sampled, inputs[:, here])
        output: DecoderOutput = decoder(token, memory, state)
        state = output.state
        features.append(output.features)
        if output.attention is not None:
            attentions.append(output.attention)
    attention = torch.cat(attentions, dim=1) if attentions else None
    return DecoderOutput(torch.cat(features, dim=1), attention, state)


def _sample(decoder: Decoder, features: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw one token per row of ``(rows, feature_size)``; int64 ``(rows,)``."""
    probabilities = decoder.score(features).float().softmax(dim=-1)
    if not len(probabilities):
        return torch.empty(0, dtype=torch.int64, device=features.device)
    return probabilities.multinomial(1, generator=generator).squeeze(1)
