"""The examples of a tokenised parallel corpus, and how they become a batch."""

from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.base import SequenceDataset
from datamodules.token_cache import LengthLimits
from datamodules.token_corpus import TokenisedCorpus, TokenisedSide
from seq2seq.batches import Batch, TextInput
from seq2seq.sequences import EOS_ID, pad_sequences
from seq2seq.tokenizers import SubwordTokenizer

SIDES = ("source", "target")


class TranslationExample(NamedTuple):
    """One sentence and its translation.

    Attributes:
        source: Ids ending in ``EOS_ID``, int64 ``(source,)``.
        target: The same of the target, ``(time,)``; None in prediction.
        position: Index in the corpus.
        reference: Target text; None where nothing is scored.
    """

    source: Tensor
    target: Tensor | None
    position: int
    reference: str | None


class TranslationDataset(SequenceDataset[TranslationExample]):
    """The examples of a tokenised corpus.

    Args:
        corpus: The corpus.
        tokenizers: Of the ``source`` and the ``target``, for sampling.
        limits: Length limits; they hold for sampled segmentations too.
        with_references: Whether to give the target text.
        sampling_alpha: Strength of subword regularisation; 0 for none.
        seed: Of the sampling.
    """

    def __init__(
        self,
        corpus: TokenisedCorpus,
        tokenizers: dict[str, SubwordTokenizer],
        limits: LengthLimits,
        with_references: bool = False,
        sampling_alpha: float = 0.0,
        seed: int = 1,
    ) -> None:
        super().__init__(seed)
        self.corpus = corpus
        self._tokenizers = tokenizers
        self._max_lengths = {
            "source": limits.max_source_length,
            "target": limits.max_target_length,
        }
        self._with_references = with_references
        self._sampling_alpha = sampling_alpha

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, index: int) -> TranslationExample:
        target = self.corpus.target
        return TranslationExample(
            source=self._ids("source", self.corpus.source, index),
            target=None if target is None else self._ids("target", target, index),
            position=index,
            reference=target.text.text(index) if target and self._with_references else None,
        )

    def _ids(self, role: str, side: TokenisedSide, index: int) -> Tensor:
        if not self._sampling_alpha:
            return torch.from_numpy(side.tokens[index].astype("int64"))
        sampling_seeds = self.generator(index).integers(1 << 32, size=len(SIDES))
        ids = self._tokenizers[role].sample(
            side.text.text(index), self._sampling_alpha, int(sampling_seeds[SIDES.index(role)])
        )
        return torch.tensor([*ids[: self._max_lengths[role] - 1], EOS_ID])


def collate(examples: list[TranslationExample]) -> Batch:
    """Return the examples as one batch, in their order."""
    targets = [example.target for example in examples if example.target is not None]
    references = [example.reference for example in examples if example.reference is not None]
    return Batch(
        inputs=TextInput(
            pad_sequences([example.source for example in examples]),
            torch.tensor([len(example.source) for example in examples]),
        ),
        target=pad_sequences(targets) if targets else None,
        indices=torch.tensor([example.position for example in examples]),
        references=tuple((reference,) for reference in references),
    )
