"""How a search remembers where its partial outputs came from, and reads them out at the end."""

from typing import NamedTuple

import torch
from torch import Tensor

from seq2seq.search.contract import Hypothesis
from seq2seq.sequences import PAD_ID


class Endings(NamedTuple):
    """Hypotheses by their last token, each part ``(hypotheses,)``.

    Attributes:
        sentences: Which sentence each belongs to, int64.
        scores: What they are ranked by.
        positions: Number of tokens before the last, int64.
        rows: Row that the last step read, int64.
        tokens: Last token, int64: the end of sequence, or another when cut.
        log_probs: Log-probability of the last token.
    """

    sentences: Tensor
    scores: Tensor
    positions: Tensor
    rows: Tensor
    tokens: Tensor
    log_probs: Tensor


def partition(done: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return who is done and who stays, int64 on ``device``, of a bool mask on the CPU.

    Done on the CPU, because the size of the result has to be known there: it needs no second wait.
    """
    ended, stay = done.nonzero().squeeze(1), (~done).nonzero().squeeze(1)
    return ended.to(device, non_blocking=True), stay.to(device, non_blocking=True)


class Trellis:
    """Every step of a search as back-pointers, kept on the device until the end.

    Args:
        keeps_attention: Whether hypotheses carry their attention.
    """

    def __init__(self, keeps_attention: bool) -> None:
        self.keeps_attention = keeps_attention
        self.parents: list[Tensor] = []
        self.tokens: list[Tensor] = []
        self.log_probs: list[Tensor] = []
        self.attentions: list[Tensor] = []

    def attend(self, attention: Tensor | None) -> None:
        """Keep the attention of the rows that a step read, ``(rows, source)``."""
        if self.keeps_attention and attention is not None:
            self.attentions.append(attention)

    def extend(self, parents: Tensor, tokens: Tensor, log_probs: Tensor) -> None:
        """Add the rows that the next step will read, each part ``(new_rows,)``.

        Args:
            parents: Which of the rows before each goes on from, int64.
            tokens: The token it adds, int64.
            log_probs: Log-probability of that token.
        """
        self.parents.append(parents)
        self.tokens.append(tokens)
        self.log_probs.append(log_probs)

    def hypotheses(
        self, endings: list[Endings], sentences: int, eos_id: int
    ) -> list[list[Hypothesis]]:
        """Return the hypotheses of each sentence, best first.

        Args:
            endings: In any order; of two with equal scores the earlier is the better.
            sentences: Number of sentences.
            eos_id: Id of the end of sequence.
        """
        joined = Endings(*(torch.cat(parts) for parts in zip(*endings, strict=True)))
        order = joined.scores.sort(descending=True, stable=True).indices
        joined = Endings(*(part[order] for part in joined))
        tokens, log_probs, attention = self._trace(joined)
        found: list[list[Hypothesis]] = [[] for _ in range(sentences)]
        entries = zip(
            joined.sentences.tolist(),
            joined.scores.tolist(),
            joined.positions.tolist(),
            tokens.tolist(),
            log_probs.tolist(),
            strict=True,
        )
        for number, (sentence, score, position, ids, token_log_probs) in enumerate(entries):
            length = position + 1
            is_finished = ids[position] == eos_id
            found[sentence].append(
                Hypothesis(
                    ids[:position] if is_finished else ids[:length],
                    score,
                    token_log_probs[:length],
                    # A copy: a view would hold the whole batch's weights in memory.
                    None if attention is None else attention[number, :length].clone(),
                    is_finished,
                )
            )
        return found

    def _trace(self, endings: Endings) -> tuple[Tensor, Tensor, Tensor | None]:
        """Follow all hypotheses back at once.

        Returns:
            Tokens and their log-probabilities, ``(hypotheses, time)``, and attention
            ``(hypotheses, time, source)``.
        """
        count, time = len(endings.rows), int(endings.positions.max()) + 1
        tokens = endings.tokens.new_full((count, time), PAD_ID)
        log_probs = endings.log_probs.new_zeros((count, time))
        attention = None
        if self.attentions:
            attention = self.attentions[0].new_zeros(count, time, self.attentions[0].shape[1])
        rows = endings.rows
        for position in reversed(range(time)):
            ends = endings.positions == position
            tokens[:, position] = torch.where(ends, endings.tokens, tokens[:, position])
            log_probs[:, position] = torch.where(ends, endings.log_probs, log_probs[:, position])
            # Shorter hypotheses join later: their rows mean nothing yet, and may not exist.
            has_begun = endings.positions >= position
            row = torch.where(has_begun, rows, 0)
            if attention is not None:
                attention[:, position] = self.attentions[position][row]
            if position:
                before = position - 1
                tokens[:, before] = torch.where(has_begun, self.tokens[before][row], PAD_ID)
                log_probs[:, before] = self.log_probs[before][row]
                rows = torch.where(has_begun, self.parents[before][row], rows)
        return tokens, log_probs, None if attention is None else attention.cpu()
