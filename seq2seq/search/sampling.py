"""Drawing outputs at random, each sentence with random numbers of its own."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from seq2seq.search.contract import Hypothesis, Request, StateT
from seq2seq.search.greedy import follow
from seq2seq.search.options import SearchOptions
from seq2seq.search.scoring import best_continuations


def sample_search(request: Request[StateT]) -> list[list[Hypothesis]]:
    """Draw ``n_best`` outputs per sentence; equal ones may be among them.

    Each output reads one random number per token, which depends on the seed, the sentence's index
    and which of its outputs it is: never on the rest of the batch.
    """
    options, sentences, draws = request.options, len(request.limits), request.options.n_best
    device = request.limits.device
    uniforms = torch.from_numpy(
        np.concatenate(
            [
                np.random.default_rng((options.seed, index)).random((draws, options.max_length))
                for index in request.indices.tolist()
            ]
        )
    ).to(device)
    # Outputs of a sentence end at different steps, so each is a sentence of its own from here on.
    copies = torch.arange(sentences, device=device).repeat_interleave(draws)
    drawn = follow(
        replace(
            request,
            state=request.state.select(copies, copies) if draws > 1 else request.state,
            limits=request.limits[copies],
            prefixes=[prefix for prefix in request.prefixes for _ in range(draws)],
        ),
        lambda scores, alive, position: draw(scores, uniforms[alive, position], options),
    )
    best = [hypothesis for [hypothesis] in drawn]
    return [
        sorted(best[start : start + draws], key=lambda hypothesis: -hypothesis.score)
        for start in range(0, sentences * draws, draws)
    ]


def draw(scores: Tensor, uniforms: Tensor, options: SearchOptions) -> Tensor:
    """Return one token per row, drawn by inverting the cumulative distribution.

    Args:
        scores: Unnormalised scores, -inf where not allowed, ``(rows, vocab)``.
        uniforms: Random numbers from 0 to 1, float64 ``(rows,)``.
        options: Temperature, and what is cut off: by ``top_k``, then ``top_p``, then ``min_p``.
    """
    ids = None
    if options.top_k:
        count = min(options.top_k, scores.shape[1])
        scores, _, ids = best_continuations(scores, scores.new_zeros(len(scores), 1), count)
    elif options.top_p < 1:
        scores, ids = scores.sort(dim=-1, descending=True, stable=True)
    # The highest becomes 0, so that no temperature overflows.
    shifted = (scores - scores.amax(dim=-1, keepdim=True)).double() / options.temperature
    probabilities = shifted.softmax(dim=-1)
    if options.top_p < 1:
        mass_before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(mass_before >= options.top_p, 0)
    lowest = options.min_p * probabilities.amax(dim=-1, keepdim=True)
    cumulative = probabilities.masked_fill(probabilities < lowest, 0).cumsum(dim=-1)
    # The first token whose cumulative probability exceeds the number: never one of probability 0.
    threshold = (uniforms * cumulative[:, -1]).unsqueeze(1)
    drawn = torch.searchsorted(cumulative, threshold, right=True).clamp(max=scores.shape[1] - 1)
    return (drawn if ids is None else ids.gather(1, drawn)).squeeze(1)
