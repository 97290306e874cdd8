"""Counts of n-grams, which several metrics compare."""

from collections import Counter
from collections.abc import Hashable, Sequence

LARGEST_NGRAM = 4
"""Words of the longest n-gram that BLEU and CIDEr look at."""

Ngram = tuple[Hashable, ...]


def count_ngrams(words: Sequence[Hashable]) -> Counter[Ngram]:
    """Return how often each n-gram of one to ``LARGEST_NGRAM`` words occurs."""
    words = tuple(words)
    return Counter(
        words[start : start + size]
        for size in range(1, LARGEST_NGRAM + 1)
        for start in range(len(words) - size + 1)
    )
