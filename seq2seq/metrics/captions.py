"""Caption metrics of a whole corpus, as one torchmetrics metric."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from seq2seq.errors import DataError
from seq2seq.metrics.cider import SIGMA, CiderD
from seq2seq.metrics.ngrams import LARGEST_NGRAM
from seq2seq.metrics.overlap import corpus_bleu, rouge_l
from seq2seq.words import CAPTION_TOKENIZER, caption_words


class CaptionScores(NamedTuple):
    """Scores of a corpus of captions.

    Attributes:
        bleu_1: Corpus BLEU of single words, 0 to 1, unsmoothed, closest reference length.
        bleu_2: The same up to pairs of words.
        bleu_3: The same up to three words.
        bleu_4: The same up to four words.
        rouge_l: Mean ROUGE-L, 0 to 1.
        cider_d: Mean CIDEr-D, 0 to 10; document frequencies are those of the corpus scored.
        exact_match: Share of captions whose words are those of one of their references.
        distinct_captions: Number of different captions as a share of all.
        repetition: Share of captions that say one to four words twice in a row.
        examples: Number of captions scored.
        signature: How the scores were computed; belongs beside every figure.
    """

    bleu_1: float
    bleu_2: float
    bleu_3: float
    bleu_4: float
    rouge_l: float
    cider_d: float
    exact_match: float
    distinct_captions: float
    repetition: float
    examples: int
    signature: str


class CaptionMetric(Metric):
    """Collects captions and scores the corpus as one.

    Neither BLEU nor CIDEr-D of a corpus is a mean over its batches, and a distributed sampler
    repeats examples to even out its ranks. So every rank keeps texts with their position in the
    corpus; ``compute`` gathers them, drops repetitions and scores what a single process would have
    scored. All scores compare the words of ``caption_words``.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    # One JSON line of ASCII for each example: what torchmetrics gathers must be tensors.
    lines: list[Tensor]

    def __init__(self, **options: Any) -> None:  # Any: what torchmetrics offers every metric
        super().__init__(**options)
        self.add_state("lines", default=[], dist_reduce_fx="cat", persistent=False)

    def update(
        self, indices: Tensor, hypotheses: Sequence[str], references: Sequence[Sequence[str]]
    ) -> None:
        """Add a batch; of an example that comes again, the first hypothesis counts.

        Args:
            indices: Position of each example in its corpus, int64 ``(batch,)``.
            hypotheses: Caption of each example.
            references: One or more right captions of each example.

        Raises:
            DataError: If an example has no reference.
        """
        lines = []
        for index, hypothesis, right in zip(indices.tolist(), hypotheses, references, strict=True):
            if not right:
                raise DataError(
                    f"Example {index} has no reference to score its caption against. "
                    "Give every example of the split a caption, or use predict."
                )
            lines.append(json.dumps([index, hypothesis, list(right)]) + "\n")
        text = "".join(lines).encode("ascii")
        self.lines.append(torch.tensor(list(text), dtype=torch.uint8, device=self.device))

    def sync(self, *arguments: Any, **options: Any) -> None:
        """Gather the lines of all ranks, as torchmetrics does."""
        if len(self.lines) == 0:
            # torchmetrics would send floats in place of no bytes, which the other ranks would wait
            # for in vain.
            self.lines.append(torch.empty(0, dtype=torch.uint8, device=self.device))
        super().sync(*arguments, **options)

    def compute(self) -> CaptionScores:
        """Score the captions of all ranks; every rank gets the same result.

        With several processes this is a collective call: each rank has to make it, also one that
        had no example.

        Raises:
            DataError: If no rank has an example.
        """
        examples = self._examples()
        if not examples:
            raise DataError(
                "There is no caption to score: the split is empty, or its limit "
                "(--trainer.limit_val_batches, --trainer.limit_test_batches) left nothing of it."
            )
        hypotheses = [example.hypothesis for example in examples]
        references = [example.references for example in examples]
        bleu_1, bleu_2, bleu_3, bleu_4 = corpus_bleu(hypotheses, references)
        return CaptionScores(
            bleu_1=bleu_1,
            bleu_2=bleu_2,
            bleu_3=bleu_3,
            bleu_4=bleu_4,
            rouge_l=fmean(map(rouge_l, hypotheses, references)),
            cider_d=fmean(CiderD(references).score(range(len(examples)), hypotheses)),
            exact_match=fmean(words in right for words, right in examples),
            distinct_captions=len(set(map(tuple, hypotheses))) / len(examples),
            repetition=fmean(map(_repeats, hypotheses)),
            examples=len(examples),
            signature=_signature([len(right) for right in references]),
        )

    @property
    def signature(self) -> str:
        """How the scores are computed. As collective as ``compute``, unless that was called."""
        scores: CaptionScores = self.compute()
        return scores.signature

    def _examples(self) -> "list[_Example]":
        """Return the words of every example, each index once, in the order of the corpus."""
        text = dim_zero_cat(self.lines).cpu().numpy().tobytes()
        texts: dict[int, tuple[str, list[str]]] = {}
        for line in text.splitlines():
            index, hypothesis, references = json.loads(line)
            # Ranks are gathered in their order: so the lowest one wins, on every rank alike.
            texts.setdefault(index, (hypothesis, references))
        return [
            _Example(caption_words(hypothesis), list(map(caption_words, references)))
            for _, (hypothesis, references) in sorted(texts.items())
        ]


class _Example(NamedTuple):
    hypothesis: list[str]
    references: list[list[str]]


def _repeats(words: list[str]) -> bool:
    return any(
        words[start : start + size] == words[start + size : start + 2 * size]
        for size in range(1, LARGEST_NGRAM + 1)
        for start in range(len(words) - 2 * size + 1)
    )


def _signature(counts: list[int]) -> str:
    fewest, most = min(counts), max(counts)
    return "|".join(
        [
            f"nrefs:{fewest}" if fewest == most else f"nrefs:{fewest}-{most}",
            f"tok:{CAPTION_TOKENIZER}",
            "bleu:closest,smooth=none",
            "rouge_l:beta=1.2",
            f"cider_d:n={LARGEST_NGRAM},sigma={SIGMA:g},df=corpus",
            f"version:{version('seq2seq-lightning')}",
        ]
    )
