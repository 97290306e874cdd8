"""Greedy search, and the loop that it shares with sampling: one path per row."""

from collections.abc import Callable

import torch
from torch import Tensor

from seq2seq.search.constraints import Constraints
from seq2seq.search.contract import Hypothesis, Request, StateT
from seq2seq.search.hypotheses import Endings, Trellis, partition
from seq2seq.search.scoring import (
    Coverage,
    best_continuations,
    check_finite,
    log_normaliser,
    normalise,
)

Choose = Callable[[Tensor, Tensor, int], Tensor]
"""Chooses the tokens of a step, int64 ``(rows,)``, from restricted scores ``(rows, vocab)``, the
numbers of the rows when the search began, and the position."""


def greedy_search(request: Request[StateT]) -> list[list[Hypothesis]]:
    """Take the most probable token at every step; on ties the lower id."""

    def choose(scores: Tensor, _alive: Tensor, _position: int) -> Tensor:
        return best_continuations(scores, scores.new_zeros(len(scores), 1), 1).tokens.squeeze(1)

    return follow(request, choose)


def follow(request: Request[StateT], choose: Choose) -> list[list[Hypothesis]]:
    """Let every sentence take one token per step, and leave when it ends.

    Args:
        request: What is searched for.
        choose: Chooses the tokens.

    Returns:
        One hypothesis for each sentence.
    """
    options, limits, state = request.options, request.limits, request.state
    constraints, coverage = Constraints(request), Coverage(options)
    trellis = Trellis(options.return_attention)
    endings: list[Endings] = []
    alive = torch.arange(len(limits), device=limits.device)
    tokens = torch.full_like(alive, request.bos_id)
    totals = torch.zeros(len(limits), device=limits.device)
    for position in range(int(limits.max())):
        scores, attention, state = request.step(tokens, state)
        trellis.attend(attention)
        coverage.add(attention)
        scores = scores.float()
        if not position:
            constraints.check(scores.shape[1])
        normaliser = log_normaliser(scores)
        constraints.restrict(scores, position)
        tokens = choose(scores, alive, position)
        log_probs = scores.gather(1, tokens.unsqueeze(1)).squeeze(1) - normaliser
        totals = totals + log_probs
        is_done = (tokens == request.eos_id) | (limits <= position + 1)
        # The one wait for the device in a step.
        done, bad = torch.stack([is_done, ~normaliser.isfinite()]).cpu()
        check_finite(bad, position)
        ended, stay = partition(done, limits.device)
        if len(ended):
            ranked = normalise(totals[ended], position + 1, options) + coverage.penalty(ended)
            positions = torch.full_like(ended, position)
            endings.append(
                Endings(alive[ended], ranked, positions, ended, tokens[ended], log_probs[ended])
            )
            if not len(stay):
                break
            alive, limits, totals = alive[stay], limits[stay], totals[stay]
            tokens, log_probs = tokens[stay], log_probs[stay]
            coverage.select(stay)
            state = state.select(stay, stay)
        constraints.advance(tokens, stay, stay)
        trellis.extend(stay, tokens, log_probs)
    return trellis.hypotheses(endings, len(request.limits), request.eos_id)
