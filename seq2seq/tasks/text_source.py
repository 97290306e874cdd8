"""Tasks that read lines of text."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from seq2seq.batches import Batch, TextInput
from seq2seq.encoders.text import TextEncoder
from seq2seq.errors import DataError
from seq2seq.nn.embedding import load_embeddings
from seq2seq.sequences import EOS_ID, pad_sequences
from seq2seq.tasks.base import SequenceTask


class TextSourceTask(SequenceTask):
    """A task with a ``TextEncoder``: tokenises lines, and fills in pretrained embeddings.

    A subclass names it before anything else of ``SequenceTask``.
    """

    encoder: TextEncoder

    def pretrained_embeddings(self) -> dict[str, tuple[nn.Module, str | None]]:
        """Return the embedding of each role, and the text file of its vectors if there is one."""
        return {}

    def setup(self, stage: str) -> None:
        """Take over the tokenizers; before training also how long texts are cut, and embeddings.

        Raises:
            ConfigError: If a tokenizer has another size than the model.
            DataError: If pretrained embeddings cannot be read, or fit none of the vocabulary.
        """
        super().setup(stage)
        if stage != "fit":
            return
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:
            self.take_limits(data)
        for role, (layer, path) in self.pretrained_embeddings().items():
            if path is not None:
                assert isinstance(layer, nn.Embedding)
                self._fill(layer, path, role)

    def take_limits(self, data: Any) -> None:  # a task need not cut
        """Take over from the data module of a training how long texts are cut."""

    def _fill(self, layer: nn.Embedding, path: str, role: str) -> None:
        tokenizer = self.tokenizers[role]
        pieces = tokenizer.pieces(range(tokenizer.vocab_size))
        filled = load_embeddings(layer, path, pieces)
        if not filled:
            raise DataError(
                f"{path}: none of its words is in the {role} vocabulary. Set "
                f"--model.{role}_embeddings to vectors of that language, written as the {role} "
                "tokenizer writes words (normalisation, upper and lower case)."
            )
        rank_zero_info(f"{path}: filled {filled} of {len(pieces)} {role} embeddings.")

    def encode_source(self, text: str) -> list[int]:
        """Return the ids of a line, without the end of sequence."""
        return self.tokenizers["source"].encode(text)

    def collate(self, items: Sequence[str]) -> Batch:
        """Tokenise source texts."""
        rows = [[*self.encode_source(text), EOS_ID] for text in items]
        lengths = torch.tensor([len(row) for row in rows])
        return Batch(TextInput(pad_sequences(rows), lengths), None, torch.arange(len(rows)))

    @staticmethod
    def is_empty(batch: Batch, row: int) -> bool:
        """Return whether a row has no token: it is a lone EOS."""
        return int(batch.inputs.lengths[row]) == 1

    def source_tokens(self, batch: Batch, row: int) -> list[str]:
        """Return the tokens of a row, with the end of sequence and without padding."""
        length = int(batch.inputs.lengths[row])
        return self.tokenizers["source"].pieces(batch.inputs.tokens[row, :length].tolist())

    def attended(
        self, batch: Batch, row: int, attention: Tensor | None
    ) -> tuple[Tensor | None, list[str] | None]:
        """Return attention ``(tokens, source)`` without padding, and the tokens of its columns."""
        if attention is None:
            return None, None
        tokens = self.source_tokens(batch, row)
        return attention[:, : len(tokens)], tokens
