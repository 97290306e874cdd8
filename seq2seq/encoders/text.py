"""Text to memory: embedding and a deep, optionally bidirectional, recurrent stack."""

import torch
from torch import Tensor, nn

from seq2seq.batches import Memory, TextInput
from seq2seq.nn.dropout import SequenceDropout
from seq2seq.nn.pooling import PoolingKind, build_pooling
from seq2seq.nn.recurrent import Cell, RecurrentStack
from seq2seq.sequences import lengths_to_mask


class TextEncoder(nn.Module):
    """Reads a token sequence; one memory position per token.

    Args:
        embedding: Maps ids to vectors ``embedding_dim`` wide.
        hidden_size: Width of the state, per direction.
        num_layers: Number of recurrent layers.
        cell: Kind of recurrent cell.
        bidirectional: Read in both directions; the memory is then ``2 * hidden_size`` wide.
        dropout: Dropout on embeddings, between layers and on the memory.
        variational_dropout: Use the same dropout mask at every time step.
        recurrent_dropout: Dropout on the recurrent matrices.
        layer_norm: Normalise the output of every layer.
        pooling: What the summary is: the top layer's ``last`` output of each direction, or the
            ``mean``, the ``max`` or an ``attention``-weighted mean of its outputs.
        summary_dropout: Dropout on the summary.

    Source: Bahdanau et al. 2015, arXiv:1409.0473, section 3.2.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        hidden_size: int,
        num_layers: int = 1,
        cell: Cell = "gru",
        *,
        bidirectional: bool = True,
        dropout: float = 0.0,
        variational_dropout: bool = False,
        recurrent_dropout: float = 0.0,
        layer_norm: bool = False,
        pooling: PoolingKind = "last",
        summary_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.dropout = SequenceDropout(dropout, variational_dropout)
        self.recurrent = RecurrentStack(
            cell,
            embedding.embedding_dim,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            variational_dropout=variational_dropout,
            recurrent_dropout=recurrent_dropout,
            layer_norm=layer_norm,
        )
        self.memory_size = self.recurrent.output_size
        self.pooling = build_pooling(pooling, self.memory_size)
        self.summary_dropout = SequenceDropout(summary_dropout)

    def forward(self, inputs: TextInput) -> Memory:
        """Encode a batch.

        Returns:
            Memory whose values are the top layer's outputs and whose summary is what they were
            pooled to; last outputs stand side by side, forward first.
        """
        return self.encode(self.embedding(inputs.tokens), inputs.lengths)

    def encode(self, embedded: Tensor, lengths: Tensor) -> Memory:
        """Encode tokens that were embedded, as ``forward`` does.

        Args:
            embedded: ``(batch, source, embedding_size)``; padding does not matter.
            lengths: Number of real tokens, at least 1, int64 ``(batch,)``.
        """
        outputs, _ = self.recurrent(self.dropout(embedded), lengths=lengths)
        mask = lengths_to_mask(lengths, embedded.shape[1])
        if self.pooling is None:
            summary = self._last(outputs, lengths)
        else:
            summary = self.pooling(outputs, mask)
        summary = self.summary_dropout(summary.unsqueeze(1)).squeeze(1)
        values: Tensor = self.dropout(outputs)
        return Memory(values, mask, summary)

    def _last(self, outputs: Tensor, lengths: Tensor) -> Tensor:
        """Return what each direction ends with, ``(batch, memory_size)``."""
        # Not the state, which has not been through the top layer's norm: where nothing else reads
        # the outputs, that would never get a gradient, which DDP takes for an error.
        size = self.memory_size // self.recurrent.directions
        forward = outputs[torch.arange(len(outputs), device=outputs.device), lengths - 1, :size]
        return torch.cat([forward, outputs[:, 0, size:]], dim=-1)
