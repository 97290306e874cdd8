"""BLEU, chrF and exact match of a whole corpus, exact under distributed evaluation."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.distributed
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from torch import Tensor

from seq2seq.errors import ConfigError, DataError


class TextScores(NamedTuple):
    """Scores of a corpus of texts.

    Attributes:
        bleu: Corpus BLEU, 0 to 100.
        chrf: Corpus chrF, 0 to 100.
        exact_match: Share of hypotheses equal to one of their references, 0 to 1.
        examples: Number of examples scored.
        bleu_signature: How sacrebleu computed ``bleu``; belongs beside every figure.
        chrf_signature: How sacrebleu computed ``chrf``.
    """

    bleu: float
    chrf: float
    exact_match: float
    examples: int
    bleu_signature: str
    chrf_signature: str


class _Example(NamedTuple):
    hypothesis: str
    references: tuple[str, ...]


class CorpusTextMetric:
    """Collects decoded texts and scores the corpus as one.

    BLEU of a corpus is no mean of the BLEU of its batches, and a distributed sampler repeats
    examples to even out its ranks. So every rank keeps texts with their position in the corpus;
    ``compute`` gathers them, drops repetitions and scores what a single process would have scored.
    """

    def __init__(self, *, tokenize: str = "13a", lowercase: bool = False) -> None:
        """Choose how texts are compared.

        Args:
            tokenize: sacrebleu's tokenisation for BLEU: ``13a`` for raw text, ``none`` for text
                that is tokenised already, ``intl``, ``char``, ``zh``, ... chrF never tokenises.
            lowercase: Whether case is ignored, by all three scores.

        Raises:
            ConfigError: If sacrebleu does not know ``tokenize``.
        """
        if tokenize not in BLEU.TOKENIZERS:
            raise ConfigError(
                f"bleu_tokenize={tokenize!r} is no tokenisation of sacrebleu; choose one of "
                f"{', '.join(sorted(BLEU.TOKENIZERS))}."
            )
        self.tokenize = tokenize
        self.lowercase = lowercase
        self._examples: dict[int, _Example] = {}

    def reset(self) -> None:
        """Forget all texts."""
        self._examples = {}

    def update(
        self, index: Tensor, hypotheses: Sequence[str], references: Sequence[Sequence[str]]
    ) -> None:
        """Add a batch; an example whose index is known already is left out.

        Args:
            index: Position of each example in its corpus, int64 ``(batch,)``.
            hypotheses: Decoded text of each example.
            references: One or more right texts of each example.

        Raises:
            DataError: If an example has no reference.
        """
        for position, hypothesis, right in zip(index.tolist(), hypotheses, references, strict=True):
            if not right:
                raise DataError(
                    f"Example {position} has no reference to score its decoded text against. "
                    "Give every example of the split a target, or use predict."
                )
            self._examples.setdefault(position, _Example(hypothesis, tuple(right)))

    def compute(self) -> TextScores:
        """Score the texts of all ranks; every rank gets the same result.

        With several processes this is a collective call: each rank has to make it, also one that
        had no example.

        Raises:
            DataError: If no rank has an example.
        """
        examples = _gather(self._examples)
        if not examples:
            raise DataError(
                "There is no decoded text to score: the split is empty, or its limit "
                "(--trainer.limit_val_batches, --trainer.limit_test_batches) left nothing of it."
            )
        hypotheses = [example.hypothesis for example in examples]
        streams = _reference_streams([example.references for example in examples])
        # `force` silences a warning against scoring tokenised text, which `none` is meant for.
        bleu = BLEU(lowercase=self.lowercase, tokenize=self.tokenize, force=self.tokenize == "none")
        chrf = CHRF(lowercase=self.lowercase)
        return TextScores(
            bleu=float(bleu.corpus_score(hypotheses, streams).score),
            chrf=float(chrf.corpus_score(hypotheses, streams).score),
            exact_match=sum(map(self._is_exact, examples)) / len(examples),
            examples=len(examples),
            bleu_signature=str(bleu.get_signature()),
            chrf_signature=str(chrf.get_signature()),
        )

    def _is_exact(self, example: _Example) -> bool:
        texts = [example.hypothesis, *example.references]
        hypothesis, *references = map(str.lower, texts) if self.lowercase else texts
        return hypothesis in references


def _gather(examples: dict[int, _Example]) -> list[_Example]:
    """Return the examples of all ranks, each index once, in the order of the corpus."""
    shares = [examples]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        shares = [{} for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(shares, examples)
    merged: dict[int, _Example] = {}
    # The lowest rank wins, on every rank alike: so all of them score the same texts.
    for share in reversed(shares):
        merged.update(share)
    return [merged[position] for position in sorted(merged)]


def _reference_streams(references: list[tuple[str, ...]]) -> list[list[Any]]:
    """Turn the references of each example into sacrebleu's streams, None where one has fewer."""
    # Any: sacrebleu documents None for a missing reference, its annotations leave it out.
    width = max(map(len, references))
    return [
        [right[number] if number < len(right) else None for right in references]
        for number in range(width)
    ]
