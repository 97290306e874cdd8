"""BLEU and ROUGE-L of captions: as pycocoevalcap computes them."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.rouge.rouge import Rouge

from seq2seq.metrics.overlap import corpus_bleu, rouge_l

Words = list[str]

CAPTIONS = st.lists(st.sampled_from("abcde"), max_size=9)
FILLED = st.lists(st.sampled_from("abcde"), min_size=1, max_size=9)
EXAMPLES = st.lists(
    st.tuples(CAPTIONS, st.lists(FILLED, min_size=1, max_size=4)), min_size=1, max_size=6
)


def their_bleu(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    scores: list[float]
    scores, _ = Bleu(4).compute_score(
        {i: [" ".join(words) for words in right] for i, right in enumerate(references)},
        {i: [" ".join(words)] for i, words in enumerate(hypotheses)},
        verbose=0,
    )
    return scores


@given(EXAMPLES)
def test_bleu_is_that_of_pycocoevalcap(examples: list[tuple[Words, list[Words]]]) -> None:
    hypotheses, references = zip(*examples, strict=True)
    expected = their_bleu(hypotheses, references)
    assert corpus_bleu(hypotheses, references) == pytest.approx(expected, abs=1e-9)


@given(CAPTIONS, st.lists(FILLED, min_size=1, max_size=4))
def test_rouge_is_that_of_pycocoevalcap(hypothesis: Words, references: list[Words]) -> None:
    expected = Rouge().calc_score([" ".join(hypothesis)], [" ".join(r) for r in references])
    assert rouge_l(hypothesis, references) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 6, 9])
def test_of_two_equally_close_references_the_shorter_gives_the_length(length: int) -> None:
    hypothesis, references = ["a"] * length, [["a"] * 7, ["a"] * 5, ["b"] * 3]
    expected = their_bleu([hypothesis], [references])
    assert corpus_bleu([hypothesis], [references]) == pytest.approx(expected, abs=1e-9)


def test_counts_are_clipped_by_the_reference_that_has_most() -> None:
    references = [
        ["the", "cat", "is", "on", "the", "mat"],
        ["there", "is", "a", "cat", "on", "the", "mat"],
    ]
    assert corpus_bleu([["the"] * 7], [references])[0] == pytest.approx(2 / 7)


def test_the_best_reference_may_differ_between_precision_and_recall() -> None:
    references = [["a", "b", "c", "d"], ["a", "b", "x", "x", "x"], ["b"]]
    # Three words of four are common with the first, all of the last one's is.
    precision, recall = 3 / 4, 1
    expected = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert rouge_l(["a", "b", "d", "y"], references) == pytest.approx(expected)


def test_texts_without_words_score_nothing() -> None:
    assert corpus_bleu([[], []], [[["a"]], [[]]]) == (0, 0, 0, 0)
    assert rouge_l([], [["a"], []]) == rouge_l(["a"], [[]]) == 0
