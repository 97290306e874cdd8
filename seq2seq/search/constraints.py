"""What an output may not be: banned and repeated tokens, too short, another than its prefix."""

import torch
from torch import Tensor

from seq2seq.errors import ConfigError
from seq2seq.search.contract import Request, StateT
from seq2seq.sequences import PAD_ID

_FREE = -1
_IMPOSSIBLE = -1e9  # Finite: what must be taken even so still leads to a hypothesis.


class Constraints:
    """Restricts the scores of a step to what each row may go on with.

    Padding and the beginning of sequence are always banned, and whatever ``banned_tokens`` names.
    The end of sequence is banned before ``min_length``. A row that may not go on at all ends. A
    prefix is followed whatever is banned.

    Args:
        request: What is searched for.
    """

    def __init__(self, request: Request[StateT]) -> None:
        options, device = request.options, request.limits.device
        self.eos_id = request.eos_id
        self.min_length = options.min_length
        self.ngram = options.no_repeat_ngram
        self.named = options.banned_tokens
        always = {PAD_ID, request.bos_id} - {request.eos_id}
        self.banned = torch.tensor(sorted(always | set(self.named)), device=device)
        self.prefixes = _pad_prefixes(request.prefixes).to(device)
        self.tokens = torch.empty(len(request.limits), 0, dtype=torch.int64, device=device)

    def check(self, vocab: int) -> None:
        """Refuse ids that are not in the vocabulary.

        Raises:
            ConfigError: If ``banned_tokens`` or a prefix has one.
        """
        outside = [token for token in self.named if token >= vocab]
        if outside:
            raise ConfigError(
                f"banned_tokens has {outside}, but the vocabulary ends at {vocab - 1}."
            )
        if self.prefixes.numel() and int(self.prefixes.max()) >= vocab:
            raise ConfigError(
                f"a prefix has id {int(self.prefixes.max())}, but the vocabulary ends at "
                f"{vocab - 1}."
            )

    def restrict(self, scores: Tensor, position: int) -> None:
        """Set the scores ``(rows, vocab)`` of what is not allowed to -inf, in place.

        Args:
            scores: Unnormalised scores.
            position: Number of tokens that each row has so far.
        """
        end = scores[:, self.eos_id].clamp(min=_IMPOSSIBLE)
        forced = self._forced(position, len(scores))
        prefix = None if forced is None else scores.gather(1, forced.clamp(min=0))
        scores.index_fill_(1, self.banned, -torch.inf)
        if position < self.min_length:
            scores[:, self.eos_id] = -torch.inf
        if self.ngram:
            scores.scatter_(1, self._repeated(position), -torch.inf)
        is_stuck = scores.amax(dim=-1) == -torch.inf
        scores[:, self.eos_id] = torch.where(is_stuck, end, scores[:, self.eos_id])
        if forced is not None and prefix is not None:
            is_forced = forced != _FREE
            scores.masked_fill_(is_forced, -torch.inf)
            ids = forced.clamp(min=0)
            prefix = prefix.clamp(min=_IMPOSSIBLE)
            scores.scatter_(1, ids, torch.where(is_forced, prefix, scores.gather(1, ids)))

    def advance(self, tokens: Tensor, rows: Tensor, sentences: Tensor | None) -> None:
        """Follow the search to its next step.

        Args:
            tokens: The token that each new row adds, int64 ``(new_rows,)``.
            rows: Which row each goes on from, int64 ``(new_rows,)``.
            sentences: Which sentences stay, int64; all when None.
        """
        if sentences is not None:
            self.prefixes = self.prefixes[sentences]
        if self.ngram:
            self.tokens = torch.cat([self.tokens[rows], tokens.unsqueeze(1)], dim=1)

    def _forced(self, position: int, rows: int) -> Tensor | None:
        """Return the id that each row must take, or ``_FREE``, ``(rows, 1)``; None if all are."""
        if position >= self.prefixes.shape[1]:
            return None
        forced = self.prefixes[:, position]
        return forced.repeat_interleave(rows // len(forced)).unsqueeze(1)

    def _repeated(self, position: int) -> Tensor:
        """Return, per row, what would complete an n-gram that it has already, or ``PAD_ID``."""
        follows = self.tokens[:, self.ngram - 1 :]  # (rows, n-grams so far)
        is_repeated = torch.ones_like(follows, dtype=torch.bool)
        for offset in range(self.ngram - 1 if follows.shape[1] else 0):
            earlier = self.tokens[:, offset : offset + follows.shape[1]]
            latest = self.tokens[:, position - self.ngram + 1 + offset]
            is_repeated &= earlier == latest.unsqueeze(1)
        return torch.where(is_repeated, follows, PAD_ID)


def _pad_prefixes(prefixes: list[list[int]]) -> Tensor:
    """Return prefixes as int64 ``(sentences, longest)``, with ``_FREE`` after their end."""
    padded = torch.full((len(prefixes), max(map(len, prefixes))), _FREE)
    for row, prefix in enumerate(prefixes):
        padded[row, : len(prefix)] = torch.tensor(prefix, dtype=torch.int64)
    return padded
