"""BLEU-1 to BLEU-4 and ROUGE-L of captions, as the COCO caption evaluation computes them.

They differ in detail from sacrebleu's: no smoothing, and lengths of the closest reference. Equal to
``Bleu`` and ``Rouge`` of pycocoevalcap.
"""

import math
from collections import Counter
from collections.abc import Sequence

from seq2seq.metrics.ngrams import LARGEST_NGRAM, Ngram, count_ngrams

Words = Sequence[str]

# Those of pycocoevalcap: no division by zero, and a figure of zero where nothing matches.
_TINY = 1e-15
_SMALL = 1e-9
_BETA = 1.2  # how much more recall counts than precision


def corpus_bleu(
    hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]
) -> tuple[float, ...]:
    """Return BLEU-1 to BLEU-4 of a corpus, each from 0 to 1.

    Args:
        hypotheses: Words of each example.
        references: Words of one or more right texts of each example.

    Source: Papineni et al. 2002, section 2; the closest reference gives the length of an example,
    the shorter one of two that are equally close.
    """
    matches = [0] * LARGEST_NGRAM
    totals = [0] * LARGEST_NGRAM
    length = reference_length = 0
    for hypothesis, right in zip(hypotheses, references, strict=True):
        words = len(hypothesis)
        length += words
        reference_length += min(map(len, right), key=lambda other: (abs(other - words), other))
        allowed: Counter[Ngram] = Counter()
        for reference in right:
            allowed |= count_ngrams(reference)
        for ngram, count in count_ngrams(hypothesis).items():
            totals[len(ngram) - 1] += count
            matches[len(ngram) - 1] += min(count, allowed[ngram])
    ratio = (length + _TINY) / (reference_length + _SMALL)
    brevity_penalty = min(1.0, math.exp(1 - 1 / ratio))
    product = 1.0
    scores = []
    for size, (match, total) in enumerate(zip(matches, totals, strict=True), start=1):
        product *= (match + _TINY) / (total + _SMALL)
        scores.append(brevity_penalty * product ** (1 / size))
    return tuple(scores)


def rouge_l(hypothesis: Words, references: Sequence[Words]) -> float:
    """Return ROUGE-L of one example, from 0 to 1: the F-measure of its longest common subsequences.

    Precision and recall are each those of the best reference, recall weighs more (beta 1.2).

    Source: Lin 2004, ROUGE, section 3.1.
    """
    common = [_common_length(hypothesis, reference) for reference in references]
    if not any(common):
        return 0.0
    precision = max(common) / len(hypothesis)
    recall = max(
        length / max(1, len(reference))
        for length, reference in zip(common, references, strict=True)
    )
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _common_length(first: Words, second: Words) -> int:
    """Return the length of the longest common subsequence."""
    above = [0] * (len(second) + 1)  # by the number of words of `second`
    for word in first:
        row = [0]
        for number, other in enumerate(second):
            row.append(above[number] + 1 if word == other else max(above[number + 1], row[-1]))
        above = row
    return above[-1]
