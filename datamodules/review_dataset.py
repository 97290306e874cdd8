"""Texts with their labels as examples, and how they become a batch."""

from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.base import SequenceDataset
from datamodules.token_corpus import TokenisedCorpus
from seq2seq.batches import Batch, TextInput
from seq2seq.sequences import pad_sequences


class ReviewExample(NamedTuple):
    """A text and its labels.

    Attributes:
        tokens: Ids ending in ``EOS_ID``, int64 ``(source,)``.
        target: Ids of its labels, int64 ``(steps,)``; None where they are not known.
        position: Index in the split.
        label: Its labels as text; empty where they are not known.
    """

    tokens: Tensor
    target: Tensor | None
    position: int
    label: str


class ReviewDataset(SequenceDataset[ReviewExample]):
    """The tokenised texts of a split.

    Args:
        corpus: The texts, and their labels as targets.
    """

    def __init__(self, corpus: TokenisedCorpus) -> None:
        super().__init__(seed=0)  # nothing is random
        self.corpus = corpus

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, index: int) -> ReviewExample:
        tokens = torch.from_numpy(self.corpus.source.tokens[index].astype("int64"))
        target = self.corpus.target
        if target is None:
            return ReviewExample(tokens, None, index, "")
        labels = torch.from_numpy(target.tokens[index].astype("int64"))
        return ReviewExample(tokens, labels, index, target.text.text(index))


def collate(examples: list[ReviewExample]) -> Batch:
    """Return the examples as one batch, in their order."""
    targets = [example.target for example in examples if example.target is not None]
    return Batch(
        inputs=TextInput(
            pad_sequences([example.tokens for example in examples]),
            torch.tensor([len(example.tokens) for example in examples]),
        ),
        target=torch.stack(targets) if targets else None,
        indices=torch.tensor([example.position for example in examples]),
        references=tuple((example.label,) for example in examples if targets),
    )
