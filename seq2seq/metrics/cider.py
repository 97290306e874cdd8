"""CIDEr-D: consensus of a caption with its references, as a metric and as a reward."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from seq2seq.metrics.ngrams import LARGEST_NGRAM, Ngram, count_ngrams

END_MARK = "</s>"
"""A word that no caption has, to append where the end of a caption is to count as a word."""

SIGMA = 6.0
"""Standard deviation of the length penalty, in words."""

_SCALE = 10.0


class CiderD:
    """Scores captions of pictures whose references are known; equal to pycocoevalcap's ``Cider``.

    N-grams weigh less, the more pictures have them in their references. So a corpus of one picture
    scores 0 throughout.

    Words may be any hashable values. In self-critical training the end of a caption must count, or
    captions learn to break off: append ``END_MARK`` to every reference, and to those samples that
    did end.

    Args:
        references: Words of each reference of each picture.

    Source: Vedantam et al. 2015, arXiv:1411.5726, sections 4 and 6; arXiv:1612.00563, section 5,
    for the end of a caption.
    """

    def __init__(self, references: Sequence[Sequence[Sequence[Hashable]]]) -> None:
        self._references = references
        pictures_with = Counter(
            ngram for right in references for ngram in set().union(*map(count_ngrams, right))
        )
        # By the number of pictures that have an n-gram; one that no picture has weighs as if one
        # had it.
        weights = [math.log(len(references) / max(1, n)) for n in range(len(references) + 1)]
        self._weights = {ngram: weights[number] for ngram, number in pictures_with.items()}
        self._largest_weight = weights[0] if references else 0.0

    def score(
        self, pictures: Sequence[int], hypotheses: Sequence[Sequence[Hashable]]
    ) -> list[float]:
        """Return CIDEr-D of each hypothesis, from 0 to 10; that of a corpus is their mean.

        Args:
            pictures: Number of the picture of each hypothesis, its place among the references.
            hypotheses: Words of each hypothesis.
        """
        # Made anew for each call: those of a corpus would fill the memory, and a picture's own
        # samples come together.
        known = {picture: self._index(self._references[picture]) for picture in set(pictures)}
        return [
            self._similarity(self._vector(words), known[picture])
            for picture, words in zip(pictures, hypotheses, strict=True)
        ]

    def _vector(self, words: Sequence[Hashable]) -> "_Vector":
        weights: dict[Ngram, float] = {}
        squares = [0.0] * LARGEST_NGRAM
        for ngram, count in count_ngrams(words).items():
            weights[ngram] = weight = count * self._weights.get(ngram, self._largest_weight)
            squares[len(ngram) - 1] += weight * weight
        # A norm of 0 belongs to weights of 0 only.
        return _Vector(weights, [math.sqrt(square) or 1.0 for square in squares], _length(words))

    def _index(self, references: Sequence[Sequence[Hashable]]) -> "_Index":
        entries: dict[Ngram, list[_Entry]] = {}
        lengths = []
        for number, words in enumerate(references):
            weights, norms, length = self._vector(words)
            lengths.append(length)
            for ngram, weight in weights.items():
                entry = number, weight, weight / norms[len(ngram) - 1]
                entries.setdefault(ngram, []).append(entry)
        return _Index(entries, lengths)

    def _similarity(self, hypothesis: "_Vector", references: "_Index") -> float:
        weights, norms, length = hypothesis
        totals = [0.0] * len(references.lengths)
        for ngram, weight in weights.items():
            for number, other, normalised in references.entries.get(ngram, ()):
                totals[number] += min(weight, other) / norms[len(ngram) - 1] * normalised
        penalised = (
            total * math.exp(-((length - other) ** 2) / (2 * SIGMA**2))
            for total, other in zip(totals, references.lengths, strict=True)
        )
        return _SCALE * sum(penalised) / (LARGEST_NGRAM * len(totals))


class _Vector(NamedTuple):
    """A caption's n-grams.

    Attributes:
        weights: Count times inverse document frequency of each n-gram.
        norms: Euclidean norm of the weights, by size of n-gram.
        length: As the length penalty takes it.
    """

    weights: dict[Ngram, float]
    norms: list[float]
    length: int


_Entry = tuple[int, float, float]  # number of the reference, weight of the n-gram, weight / norm


class _Index(NamedTuple):
    """The references of a picture.

    Attributes:
        entries: The references that have an n-gram, by n-gram.
        lengths: Length of each reference.
    """

    entries: dict[Ngram, list[_Entry]]
    lengths: list[int]


def _length(words: Sequence[Hashable]) -> int:
    # pycocoevalcap counts bigrams, which tells no word from one.
    return max(0, len(words) - 1)
