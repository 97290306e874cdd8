"""Models whose scores are known, and the slow and obvious way to search them."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seq2seq.search import Hypothesis, SearchOptions, StepResult, search
from seq2seq.sequences import BOS_ID, EOS_ID, PAD_ID

Scores = Callable[[int, tuple[int, ...]], Sequence[float]]


class HistoryState(NamedTuple):
    """All that each row has read, and, as a decoder has it, a memory with a row per sentence."""

    history: Tensor
    owners: Tensor
    memory: Tensor

    def select(self, rows: Tensor, sentences: Tensor | None = None) -> "HistoryState":
        memory = self.memory if sentences is None else self.memory[sentences]
        return HistoryState(self.history[rows], self.owners[rows], memory)


class HistoryModel:
    """Scores each row by its sentence and everything before.

    Args:
        scores: Gives the scores of a sentence's next token after a prefix.
        attention: Gives the weights of the same step.
    """

    def __init__(self, scores: Scores, attention: Scores | None = None) -> None:
        self.scores = scores
        self.attention = attention
        self.rows: list[int] = []

    def __call__(self, tokens: Tensor, state: HistoryState) -> StepResult[HistoryState]:
        self.rows.append(len(tokens))
        beams = len(tokens) // len(state.memory)
        # The rows of a sentence are adjacent, and as many as those of any other.
        assert state.memory.repeat_interleave(beams).tolist() == state.owners.tolist()
        history = torch.cat([state.history, tokens.unsqueeze(1)], dim=1)
        assert set(history[:, 0].tolist()) == {BOS_ID}
        seen = [
            (sentence, tuple(row[1:]))
            for sentence, row in zip(state.owners.tolist(), history.tolist(), strict=True)
        ]
        attention = None
        if self.attention is not None:
            attention = torch.tensor([list(self.attention(*key)) for key in seen])
        return StepResult(
            torch.tensor([list(self.scores(*key)) for key in seen]),
            attention,
            HistoryState(history, state.owners, state.memory),
        )

    def search(
        self, options: SearchOptions, sentences: Sequence[int] = (0,), **keywords: object
    ) -> list[list[Hypothesis]]:
        numbers = torch.tensor(list(sentences))
        state = HistoryState(torch.empty(len(numbers), 0, dtype=torch.int64), numbers, numbers)
        found = search(self, state, len(numbers), options, **keywords)  # type: ignore[arg-type]
        assert len(found) == len(numbers)
        return found

    def best(self, options: SearchOptions, **keywords: object) -> Hypothesis:
        return self.search(options, **keywords)[0][0]  # type: ignore[arg-type]

    def forced_log_probs(self, sentence: int, hypothesis: Hypothesis) -> list[float]:
        tokens = [*hypothesis.tokens, *([EOS_ID] if hypothesis.is_finished else [])]
        return [
            log_probabilities(self.scores(sentence, tuple(tokens[:position])))[token]
            for position, token in enumerate(tokens)
        ]


def log_probabilities(scores: Sequence[float]) -> list[float]:
    return torch.tensor(scores, dtype=torch.float64).log_softmax(dim=0).tolist()


def random_model(vocab: int, spread: float = 2.0, end: float = 0.0) -> HistoryModel:
    """Return a model whose scores depend on the whole history; ``end`` is added to EOS's."""

    @cache
    def scores(sentence: int, prefix: tuple[int, ...]) -> list[float]:
        values = np.random.default_rng([sentence, *prefix]).normal(size=vocab) * spread
        values[EOS_ID] += end
        return [float(value) for value in values]

    return HistoryModel(scores)


def table_model(
    table: dict[tuple[int, ...], dict[int, float]], vocab: int = 7, rest: float = 0.0
) -> HistoryModel:
    """Return a model with probabilities by prefix; what is not named gets ``rest``."""

    def scores(_sentence: int, prefix: tuple[int, ...]) -> list[float]:
        named = table.get(prefix, {EOS_ID: 1.0})
        values = [named.get(token, rest) for token in range(vocab)]
        return [math.log(value) if value else -math.inf for value in values]

    return HistoryModel(scores)


def penalty(length: int, options: SearchOptions) -> float:
    if options.length_penalty_type == "gnmt":
        return ((5 + length) / 6) ** options.length_penalty
    return float(length**options.length_penalty)


def brute_force(
    model: HistoryModel, sentence: int, vocab: int, options: SearchOptions
) -> list[tuple[list[int], float, bool]]:
    """Return tokens, score and whether it is finished, of every possible output, best first."""
    free = [token for token in range(vocab) if token not in {PAD_ID, BOS_ID, EOS_ID}]
    found = []
    for length in range(options.max_length + 1):
        for tokens in itertools.product(free, repeat=length):
            is_finished = length < options.max_length
            hypothesis = Hypothesis(list(tokens), 0.0, [], None, is_finished)
            log_probs = model.forced_log_probs(sentence, hypothesis)
            score = sum(log_probs) / penalty(len(log_probs), options)
            found.append((list(tokens), score, is_finished))
    return sorted(found, key=lambda entry: -entry[1])
