"""Beam search, batched over sentences."""

from typing import Generic, NamedTuple

import torch
from torch import Tensor

from seq2seq.search.constraints import Constraints
from seq2seq.search.contract import Hypothesis, Request, StateT
from seq2seq.search.hypotheses import Endings, Trellis, partition
from seq2seq.search.options import SearchOptions
from seq2seq.search.scoring import (
    Coverage,
    best_continuations,
    check_finite,
    log_normaliser,
    normalise,
)


class Finished(NamedTuple):
    """The best endings of each sentence so far, best first, each part ``(sentences, n_best)``.

    Attributes:
        scores: What they are ranked by; -inf where there is none yet.
        positions: Number of tokens before the last, int64.
        rows: Row that the last step read, int64.
        tokens: Last token, int64.
        log_probs: Log-probability of the last token.
    """

    scores: Tensor
    positions: Tensor
    rows: Tensor
    tokens: Tensor
    log_probs: Tensor

    def merge(self, other: "Finished") -> "Finished":
        """Return the best of both, as many as before; on ties those found earlier."""
        count = self.scores.shape[1]
        joined = [torch.cat(parts, dim=1) for parts in zip(self, other, strict=True)]
        order = joined[0].sort(dim=1, descending=True, stable=True).indices[:, :count]
        return Finished(*(part.gather(1, order) for part in joined))

    def select(self, sentences: Tensor) -> "Finished":
        """Return those of some sentences, int64."""
        return Finished(*(part[sentences] for part in self))

    def endings(self, numbers: Tensor) -> Endings:
        """Return what there is, given the number that each sentence had at first, int64."""
        is_found = self.scores > -torch.inf
        sentences = numbers.unsqueeze(1).expand_as(self.scores)
        return Endings(*(part[is_found] for part in (sentences, *self)))


class Ranking(NamedTuple):
    """The best continuations of each sentence, best first, each part ``(sentences, count)``.

    Attributes:
        totals: Log-probability of the whole; -inf where there are too few continuations.
        rows: Row that each goes on from, int64.
        tokens: Token that each adds, int64.
        log_probs: Log-probability of that token.
    """

    totals: Tensor
    rows: Tensor
    tokens: Tensor
    log_probs: Tensor

    def select(self, sentences: Tensor) -> "Ranking":
        """Return those of some sentences, int64."""
        return Ranking(*(part[sentences] for part in self))


def beam_search(request: Request[StateT]) -> list[list[Hypothesis]]:
    """Follow the ``beam_size`` most probable partial outputs of every sentence.

    At each step the ``2 * beam_size`` best continuations of a sentence are ranked. Those that end
    and are among the first ``beam_size`` are finished; the best ``beam_size`` that do not end go
    on. A sentence is done with ``beam_size`` finished hypotheses, when no partial one can still
    beat the worst of its ``n_best`` (see ``SearchOptions.early_stopping``), or at its length limit.
    What is cut there competes with the finished by score alone.
    """
    return _BeamSearch(request).run()


class _BeamSearch(Generic[StateT]):
    """The sentences that are still searched, and what they have so far."""

    def __init__(self, request: Request[StateT]) -> None:
        self.request = request
        self.options = request.options
        self.state = request.state
        self.limits = request.limits
        self.numbers = torch.arange(len(self.limits), device=self.limits.device)
        self.tokens = torch.full_like(self.numbers, request.bos_id)
        # One row per sentence at first, ``beam_size`` from the first step that is free to choose.
        self.totals = torch.zeros(len(self.limits), 1, device=self.limits.device)
        self.finished = _none_finished(self.totals, self.options.n_best)
        self.num_finished = torch.zeros_like(self.numbers)
        self.first_free = min(map(len, request.prefixes))
        self.constraints = Constraints(request)
        self.coverage = Coverage(self.options)
        self.trellis = Trellis(self.options.return_attention)
        self.endings: list[Endings] = []

    def run(self) -> list[list[Hypothesis]]:
        """Search to the end, and return the hypotheses of each sentence."""
        for position in range(int(self.limits.max())):
            ranking, is_bad = self._rank(position)
            is_cut = self.limits <= position + 1
            self._finish(ranking, is_cut, position)
            width = self.options.beam_size if position >= self.first_free else 1
            live = self._live(ranking, width)
            bound = _bound(live.totals[:, 0], self.limits, position, self.options)
            is_done = is_cut | (self.num_finished >= self.options.beam_size)
            is_done |= bound <= self.finished.scores[:, -1]
            # The one wait for the device in a step.
            done, bad = torch.stack([is_done, is_bad]).cpu()
            check_finite(bad, position)
            stay = self._leave(done) if done.any() else None
            if not len(self.numbers):
                break
            self._go_on(live if stay is None else live.select(stay), stay)
        return self.trellis.hypotheses(self.endings, len(self.request.limits), self.request.eos_id)

    def _rank(self, position: int) -> tuple[Ranking, Tensor]:
        """Take a step.

        Returns:
            The best continuations, and whether scores have no probabilities, bool ``(sentences,)``.
        """
        scores, attention, self.state = self.request.step(self.tokens, self.state)
        self.trellis.attend(attention)
        self.coverage.add(attention)
        scores = scores.float()
        if not position:
            self.constraints.check(scores.shape[1])
        normaliser = log_normaliser(scores).view_as(self.totals)
        self.constraints.restrict(scores, position)
        count = 2 * self.options.beam_size
        found = best_continuations(scores, self.totals - normaliser, count)
        rows = found.beams + _first_rows(self.totals)
        log_probs = scores[rows, found.tokens] - normaliser.gather(1, found.beams)
        ranking = Ranking(found.totals, rows, found.tokens, log_probs)
        return ranking, ~normaliser.isfinite().all(dim=1)

    def _finish(self, ranking: Ranking, is_cut: Tensor, position: int) -> None:
        """Keep what ends here; of sentences at their limit, ``(sentences,)``, everything."""
        is_end = ranking.tokens == self.request.eos_id
        is_possible = ranking.totals > -torch.inf
        is_finished = is_end & is_possible
        is_finished[:, self.options.beam_size :] = False
        scores = normalise(ranking.totals, position + 1, self.options)
        scores = scores + self.coverage.penalty(ranking.rows)
        scores = scores.masked_fill(~(is_finished | (is_cut.unsqueeze(1) & ~is_end)), -torch.inf)
        positions = torch.full_like(ranking.rows, position)
        new = Finished(scores, positions, ranking.rows, ranking.tokens, ranking.log_probs)
        self.finished = self.finished.merge(new)
        self.num_finished = self.num_finished + is_finished.sum(dim=1)

    def _live(self, ranking: Ranking, width: int) -> Ranking:
        """Return the best ``width`` continuations that do not end."""
        totals = ranking.totals.masked_fill(ranking.tokens == self.request.eos_id, -torch.inf)
        order = totals.sort(dim=1, descending=True, stable=True).indices[:, :width]
        return Ranking(*(part.gather(1, order) for part in (totals, *ranking[1:])))

    def _leave(self, done: Tensor) -> Tensor:
        """Let sentences leave, bool ``(sentences,)`` on the CPU; return which stay, int64."""
        ended, stay = partition(done, self.numbers.device)
        self.endings.append(self.finished.select(ended).endings(self.numbers[ended]))
        self.finished = self.finished.select(stay)
        self.numbers = self.numbers[stay]
        self.limits = self.limits[stay]
        self.num_finished = self.num_finished[stay]
        return stay

    def _go_on(self, live: Ranking, stay: Tensor | None) -> None:
        """Make the live continuations the rows of the next step."""
        self.totals = live.totals
        self.tokens = live.tokens.flatten()
        rows = live.rows.flatten()
        self.trellis.extend(rows, self.tokens, live.log_probs.flatten())
        self.coverage.select(rows)
        self.constraints.advance(self.tokens, rows, stay)
        self.state = self.state.select(rows, stay)


def _none_finished(totals: Tensor, n_best: int) -> Finished:
    """Return the endings before the first step, one row per row of ``totals``."""
    nothing = totals.new_full((len(totals), n_best), -torch.inf)
    zeros = torch.zeros_like(nothing, dtype=torch.int64)
    return Finished(nothing, zeros, zeros, zeros, nothing)


def _first_rows(totals: Tensor) -> Tensor:
    """Return the first row of each sentence, int64 ``(sentences, 1)``."""
    sentences, width = totals.shape
    return torch.arange(0, sentences * width, width, device=totals.device).unsqueeze(1)


def _bound(best: Tensor, limits: Tensor, position: int, options: SearchOptions) -> Tensor:
    """Return the score that a sentence's partial outputs are taken to reach, ``(sentences,)``.

    A log-probability only falls, and counts for most at the length with the weakest penalty; with
    early stopping it is taken at the length it has. The coverage penalty is at most 0.
    """
    may_gain = options.length_penalty > 0 and not options.early_stopping
    lengths = limits if may_gain else limits.clamp(max=position + 2)
    return normalise(best, lengths, options)
