"""Text to memory: embedding and a deep, optionally bidirectional, recurrent stack."""

import torch
from torch import Tensor, nn

from seq2seq.batches import Memory, TextInput
from seq2seq.nn.dropout import SequenceDropout
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
        layer_norm: Normalise the output of every layer.

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
        layer_norm: bool = False,
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
            layer_norm=layer_norm,
        )
        self.memory_size = self.recurrent.output_size

    def forward(self, inputs: TextInput) -> Memory:
        """Encode a batch.

        Returns:
            Memory whose values are the top layer's outputs and whose summary is the top layer's
            last state of each direction, side by side.
        """
        embedded = self.dropout(self.embedding(inputs.tokens))
        outputs, state = self.recurrent(embedded, lengths=inputs.lengths)
        summary = torch.cat(list(state[0][-self.recurrent.directions :]), dim=-1)
        mask = lengths_to_mask(inputs.lengths, inputs.tokens.shape[1])
        values: Tensor = self.dropout(outputs)
        return Memory(values, mask, summary)
