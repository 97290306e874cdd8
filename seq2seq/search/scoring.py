"""Log-probabilities, the best tokens of many, and the scores that hypotheses are ranked by."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from seq2seq.errors import ConfigError, SearchError
from seq2seq.search.options import SearchOptions

CHUNK = 64
"""Vocabulary entries that ``best_continuations`` looks at as one; a multiple of a CPU's vectors."""

BLOCK = 2**18
"""Scores that ``log_normaliser`` takes at a time on a CPU."""


def log_normaliser(scores: Tensor) -> Tensor:
    """Return what to subtract from scores ``(rows, vocab)`` for log-probabilities, ``(rows,)``.

    Infinite or NaN, which of them depends on the device, where the scores have no probabilities.
    """
    if scores.is_cuda:
        return scores.logsumexp(dim=-1)
    # The most probable token has probability 1 / sum(exp(score - highest)). The softmax is fused on
    # a CPU, ``logsumexp`` is not; and a block at a time stays in the cache, where one temporary as
    # large as the scores would cost more in page faults than in arithmetic.
    blocks = torch.split(scores, max(1, BLOCK // scores.shape[-1]))
    return torch.cat(
        [block.amax(dim=-1) - block.softmax(dim=-1).amax(dim=-1).log() for block in blocks]
    )


def check_finite(is_bad: Tensor, position: int) -> None:
    """Refuse a step whose scores have no probabilities.

    Args:
        is_bad: True where a normaliser is not finite, bool, on the CPU.
        position: Number of the step, from 0.

    Raises:
        SearchError: If any is.
    """
    if is_bad.any():
        raise SearchError(
            f"The step function gave scores without a finite softmax (NaN or infinite) at step "
            f"{position + 1}, for {int(is_bad.sum())} of {len(is_bad)} sentences. The model has "
            "most likely diverged in training: use an earlier checkpoint."
        )


class Continuations(NamedTuple):
    """The best ways to go on, best first, each part ``(sentences, count)``.

    Attributes:
        totals: Log-probability of the whole partial output; -inf where there are too few ways.
        beams: Which of the sentence's rows is continued, int64.
        tokens: The token that continues it, int64.
    """

    totals: Tensor
    beams: Tensor
    tokens: Tensor


def best_continuations(scores: Tensor, offsets: Tensor, count: int) -> Continuations:
    """Return the ``count`` best of ``scores + offsets`` per sentence.

    Ties go to the lower beam, then to the lower token. ``torch.topk`` promises no such order, and
    is slow over a whole vocabulary on a CPU. The best of all must lie in the chunks with the best
    maxima, so only those are looked into.

    Args:
        scores: Unnormalised scores, -inf where not allowed, ``(rows, vocab)``.
        offsets: What makes the scores of each row log-probabilities of whole partial outputs,
            ``(sentences, beams)``, with ``rows = sentences * beams``.
        count: Number of continuations.
    """
    sentences, beams = offsets.shape
    vocab = scores.shape[-1]
    maxima = _chunk_maxima(scores)  # (rows, chunks)
    chunks = maxima.shape[-1]
    maxima = maxima.view(sentences, beams, chunks) + offsets.unsqueeze(-1)
    chosen = _top(maxima.flatten(1), count).sort(dim=-1).values  # (sentences, chosen)
    beam = chosen // chunks
    within = torch.arange(CHUNK, device=scores.device)
    token = (chosen % chunks * CHUNK).unsqueeze(-1) + within  # (sentences, chosen, CHUNK)
    row = beam + beams * torch.arange(sentences, device=scores.device).unsqueeze(1)
    totals = scores[row.unsqueeze(-1), token.clamp(max=vocab - 1)]
    totals = totals + offsets.gather(1, beam).unsqueeze(-1)
    totals = totals.masked_fill(token >= vocab, -torch.inf).flatten(1)
    best = _top(totals, count)
    found = Continuations(
        totals.gather(1, best),
        beam.gather(1, best // CHUNK),
        token.flatten(1).gather(1, best).clamp(max=vocab - 1),
    )
    missing = count - best.shape[1]
    if missing <= 0:
        return found
    return Continuations(
        pad(found.totals, (0, missing), value=-torch.inf),
        pad(found.beams, (0, missing)),
        pad(found.tokens, (0, missing)),
    )


def _chunk_maxima(scores: Tensor) -> Tensor:
    """Return the maximum of each ``CHUNK`` neighbours, the last of which may be fewer."""
    vocab = scores.shape[-1]
    whole = vocab // CHUNK
    parts = []
    if whole:
        parts.append(scores[:, : whole * CHUNK].view(-1, whole, CHUNK).amax(dim=-1))
    if vocab % CHUNK:
        parts.append(scores[:, whole * CHUNK :].amax(dim=-1, keepdim=True))
    return torch.cat(parts, dim=-1)


def _top(values: Tensor, count: int) -> Tensor:
    """Return where the greatest of ``(rows, size)`` are, best first, on ties the first first."""
    # A float's bits, read as an integer, sort as the float does once those of negative ones are
    # flipped; the position in the lower half makes every key unique. Adding 0 turns -0 into 0.
    bits = (values.float() + 0.0).view(torch.int32).long()
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    keys = (ordered << 32) - torch.arange(values.shape[1], device=values.device)
    return keys.topk(min(count, values.shape[1])).indices


def normalise(totals: Tensor, lengths: Tensor | int, options: SearchOptions) -> Tensor:
    """Divide log-probabilities by the length penalty, lengths counting the end of sequence."""
    base = (lengths + 5) / 6 if options.length_penalty_type == "gnmt" else lengths
    return totals / base**options.length_penalty


class Coverage:
    """The attention that each row's source got so far, and the penalty on too little of it.

    Without ``coverage_penalty`` nothing is kept and the penalty is 0.

    Source: GNMT, arXiv:1609.08144, equation 14.
    """

    def __init__(self, options: SearchOptions) -> None:
        self.weight = options.coverage_penalty
        self.sums: Tensor | None = None

    def add(self, attention: Tensor | None) -> None:
        """Add the weights of a step, ``(rows, source)``.

        Raises:
            ConfigError: If there are none, though a penalty is asked for.
        """
        if not self.weight:
            return
        if attention is None:
            raise ConfigError(
                f"coverage_penalty={self.weight} needs a decoder with attention, and this one has "
                "none; set it to 0."
            )
        weights = attention.float()
        self.sums = weights if self.sums is None else self.sums + weights

    def penalty(self, rows: Tensor) -> Tensor | float:
        """Return what to add to the scores of rows, int64 of any shape; at most 0, same shape."""
        if self.sums is None:
            return 0.0
        # Padding never gets any attention and is no part of the source.
        covered = torch.where(self.sums > 0, self.sums, 1).clamp(max=1)
        penalty: Tensor = self.weight * covered.log().sum(dim=-1)
        return penalty[rows]

    def select(self, rows: Tensor) -> None:
        """Keep and reorder rows, int64 ``(new_rows,)``."""
        self.sums = None if self.sums is None else self.sums[rows]
