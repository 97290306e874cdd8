"""What a search takes and gives: a step function, an opaque state, hypotheses."""

from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

from torch import Tensor

from seq2seq.search.options import SearchOptions


class SearchState(Protocol):
    """Whatever a step function carries from one step to the next, one row per partial output."""

    def select(self, rows: Tensor, sentences: Tensor | None = None) -> Self:
        """Keep and reorder rows, and, where some have finished, sentences.

        Args:
            rows: Which rows to keep, int64 ``(new_rows,)``. Those of a sentence stay adjacent, and
                every sentence has as many.
            sentences: Which sentences to keep, int64; may repeat some. All of them when None.
        """
        ...


StateT = TypeVar("StateT", bound=SearchState)


class StepResult(NamedTuple, Generic[StateT]):
    """What a step function gives.

    Attributes:
        scores: Unnormalised scores ``(rows, vocab)``. The search writes into them.
        attention: Attention weights ``(rows, source)``, exactly zero on padding; None without
            attention.
        state: The state after the step.
    """

    scores: Tensor
    attention: Tensor | None
    state: StateT


class Step(Protocol[StateT]):
    """Advances every partial output by one token."""

    def __call__(self, tokens: Tensor, state: StateT, /) -> StepResult[StateT]:
        """Read the previous tokens, int64 ``(rows,)``, and return the scores of the next."""
        ...


class Hypothesis(NamedTuple):
    """One output of a search.

    Attributes:
        tokens: Ids without beginning and end of sequence.
        score: What hypotheses are ranked by: the sum of ``token_log_probs`` divided by the length
            penalty, plus the coverage penalty.
        token_log_probs: The model's log-probability of each token and, when finished, of the end
            of sequence; whatever was banned, forced or tempered.
        attention: Weights ``(len(token_log_probs), source)`` on the CPU, as wide as the batch's
            longest source; None unless asked for.
        is_finished: Whether it ended by itself; False when the length limit cut it.
    """

    tokens: list[int]
    score: float
    token_log_probs: list[float]
    attention: Tensor | None
    is_finished: bool


@dataclass(frozen=True)
class Request(Generic[StateT]):
    """All that a search method is told.

    Attributes:
        step: The step function.
        state: The state before the first step, one row per sentence.
        options: How to search.
        bos_id: Id that the first step reads.
        eos_id: Id that ends an output.
        limits: Most tokens of each output, at least 1, int64 ``(sentences,)``.
        prefixes: Tokens that each output begins with.
        indices: What tells the random numbers of sentences apart, int64 ``(sentences,)``.
    """

    step: Step[StateT]
    state: StateT
    options: SearchOptions
    bos_id: int
    eos_id: int
    limits: Tensor
    prefixes: list[list[int]]
    indices: Tensor
