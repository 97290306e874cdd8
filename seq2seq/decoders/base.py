"""The contract every decoder keeps: a parallel pass for training, one step for search."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seq2seq.batches import Memory


class DecoderState(NamedTuple):
    """Everything a decoder carries from one step to the next; never changed in place.

    Attributes:
        recurrent: Parts of the recurrent state, each ``(layers, batch, hidden)``: one part for a
            tanh RNN or a GRU, hidden and cell for an LSTM.
        fed: The features of the previous step, ``(batch, feature_size)``, with input feeding.
    """

    recurrent: tuple[Tensor, ...]
    fed: Tensor | None = None

    def select(self, index: Tensor) -> "DecoderState":
        """Return the rows of ``index``, int64 ``(rows,)``, in that order, as search asks."""
        fed = None if self.fed is None else self.fed.index_select(0, index)
        return DecoderState(tuple(part.index_select(1, index) for part in self.recurrent), fed)

    def detach(self) -> "DecoderState":
        """Return the same state, cut off from the graph for truncated back-propagation."""
        fed = None if self.fed is None else self.fed.detach()
        return DecoderState(tuple(part.detach() for part in self.recurrent), fed)


class DecoderOutput(NamedTuple):
    """What the parallel pass gives.

    Attributes:
        features: What the output layer reads, ``(batch, time, feature_size)``. Scores are left to
            ``Decoder.score``, so that padding never reaches the output layer.
        attention: Attention weights ``(batch, time, source)``; None without attention.
        state: The state after the last step.
    """

    features: Tensor
    attention: Tensor | None
    state: DecoderState


class StepOutput(NamedTuple):
    """What one step gives.

    Attributes:
        scores: Unnormalised scores ``(rows, vocab)``.
        attention: Attention weights ``(rows, source)``; None without attention.
        state: The state after the step.
    """

    scores: Tensor
    attention: Tensor | None
    state: DecoderState


class Decoder(nn.Module, ABC):
    """Turns a ``Memory`` into a sequence, for every modality."""

    @abstractmethod
    def prepare(self, memory: Memory) -> Memory:
        """Return ``memory`` with its keys computed, so that steps do not compute them again."""

    @abstractmethod
    def init_state(self, memory: Memory) -> DecoderState:
        """Return the state before the first step, one row per row of ``memory``."""

    @abstractmethod
    def forward(
        self, inputs: Tensor, memory: Memory, state: DecoderState | None = None
    ) -> DecoderOutput:
        """Run over whole sequences at once, as teacher forcing allows.

        Args:
            inputs: Shifted targets, int64 ``(batch, time)``; values ``(batch, time, channels)``
                where the decoder is not over tokens.
            memory: Encoder output for the same rows.
            state: Where to go on from; ``init_state(memory)`` when None.
        """

    @abstractmethod
    def step(self, token: Tensor, state: DecoderState, memory: Memory) -> StepOutput:
        """Advance by one token; gives what ``forward`` gives at that position.

        Args:
            token: Previous token ids, int64 ``(rows,)``; or values ``(rows, channels)``.
            state: State of the same rows.
            memory: Encoder output of ``rows`` inputs, or of fewer: row ``i`` of the memory then
                serves the ``rows / len(memory)`` adjacent rows of its beams.
        """

    @abstractmethod
    def score(self, features: Tensor) -> Tensor:
        """Return unnormalised scores ``(..., vocab)`` of features ``(..., feature_size)``."""


class DecodingState(NamedTuple):
    """A decoder in the middle of a search, seen from outside as one opaque state.

    Attributes:
        decoder: State of each row, ``sentences * beam`` rows, those of a sentence adjacent.
        memory: Prepared encoder output, one row per sentence, shared by its beams.
    """

    decoder: DecoderState
    memory: Memory

    def select(self, rows: Tensor, sentences: Tensor | None = None) -> "DecodingState":
        """Keep and reorder rows, and, where some have finished, sentences.

        Args:
            rows: Which rows to keep, int64 ``(new_rows,)``.
            sentences: Which sentences to keep, int64; all of them when None.
        """
        memory = self.memory if sentences is None else self.memory.select(sentences)
        return DecodingState(self.decoder.select(rows), memory)


class ViewStates(NamedTuple):
    """Decoders that look at the same inputs in several ways, in the middle of one search.

    Attributes:
        views: The state of each, for the same rows and sentences.
    """

    views: tuple[DecodingState, ...]

    def select(self, rows: Tensor, sentences: Tensor | None = None) -> "ViewStates":
        """Keep and reorder rows and sentences of all of them; see ``DecodingState``."""
        return ViewStates(tuple(view.select(rows, sentences) for view in self.views))


def average_scores(scores: Sequence[Tensor]) -> Tensor:
    """Return log-probabilities of the mean of some distributions.

    Args:
        scores: Unnormalised scores of each, ``(..., vocab)``.
    """
    log_probs = torch.stack([each.float().log_softmax(dim=-1) for each in scores])
    return log_probs.logsumexp(dim=0) - log(len(scores))
