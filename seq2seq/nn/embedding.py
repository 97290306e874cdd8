"""Token embeddings with word dropout, and their initial values from a text file."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from seq2seq.errors import DataError
from seq2seq.sequences import EOS_ID, PAD_ID, UNK_ID


class TokenEmbedding(nn.Embedding):
    """Embeds token ids; padding is zero.

    Args:
        vocab_size: Number of tokens.
        size: Width of an embedding.
        word_dropout: Probability of reading a token as unknown, in training.
    """

    def __init__(self, vocab_size: int, size: int, word_dropout: float = 0.0) -> None:
        super().__init__(vocab_size, size, padding_idx=PAD_ID)
        self.word_dropout = word_dropout

    def reset_parameters(self) -> None:
        """Draw values of a size that also fits a tied output layer."""
        nn.init.normal_(self.weight, std=self.embedding_dim**-0.5)
        self._fill_padding_idx_with_zero()

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``(..., size)`` for ids int64 ``(...)``."""
        if self.training and self.word_dropout:
            # Special ids carry the structure of the sequence and are never dropped.
            is_dropped = torch.rand(tokens.shape, device=tokens.device) < self.word_dropout
            tokens = tokens.masked_fill(is_dropped & (tokens > EOS_ID), UNK_ID)
        return super().forward(tokens)


def load_embeddings(embedding: nn.Embedding, path: str | Path, pieces: Sequence[str]) -> int:
    """Overwrite the rows of the pieces that a text file of vectors names.

    Args:
        embedding: The layer to fill, row ``i`` for ``pieces[i]``.
        path: One vector per line, ``word value value ...``, as GloVe and word2vec write them; a
            first line of two numbers is a header. A word also fills the piece that begins a word.
            A word may have spaces, as some of GloVe's, unless its last part is a number.
        pieces: The vocabulary.

    Returns:
        How many rows were filled.

    Raises:
        DataError: If the file is missing or not UTF-8, or a vector is no vector of numbers or has
            another width than the layer.
    """
    rows = {piece: row for row, piece in reversed(list(enumerate(pieces)))}
    filled = set()
    try:
        # Bytes: a text file is decoded in blocks, which would not tell the line of an error.
        with Path(path).open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                word, values = _split(line, embedding.embedding_dim, f"{path}:{number}")
                if number == 1 and len(values) == 1:
                    continue
                vector = _parse(values, embedding.embedding_dim, f"{path}:{number}")
                for row in {rows.get(word), rows.get("▁" + word)} - {None}:
                    embedding.weight.data[row] = vector
                    filled.add(row)
    except OSError as error:
        raise DataError(f"{path}: cannot read the embeddings: {error.strerror}.") from error
    return len(filled)


def _split(line: bytes, size: int, place: str) -> tuple[str, list[str]]:
    """Return the word of a line, and the values after it."""
    try:
        word, *values = line.decode("utf-8").rstrip().split(" ")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{place}: not UTF-8 at byte {error.start + 1} of the line ({error.reason}). Convert "
            "the file to UTF-8, and give text: word2vec's binary format cannot be read."
        ) from error
    spare = len(values) - size
    # glove.840B.300d has ". . ." and "at name@domain.com". A vector that is too wide, on the other
    # hand, has one more number before what would be its last values.
    if spare > 0 and not _is_number(values[spare - 1]):
        return " ".join([word, *values[:spare]]), values[spare:]
    return word, values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parse(values: list[str], size: int, place: str) -> Tensor:
    if len(values) != size:
        raise DataError(
            f"{place}: the vector has {len(values)} values, the model expects {size}. "
            f"Set --model.embedding_size {len(values)}."
        )
    try:
        return torch.tensor([float(value) for value in values])
    except ValueError as error:
        raise DataError(f"{place}: not a vector of numbers: {error}.") from error
