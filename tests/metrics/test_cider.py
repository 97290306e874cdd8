"""CIDEr-D: as pycocoevalcap computes it, and as a reward."""

from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider

from seq2seq.metrics import CiderD
from seq2seq.metrics.cider import END_MARK
from seq2seq.words import caption_words

Words = list[str]

CAPTIONS = st.lists(st.sampled_from("abcdefg"), max_size=9)
EXAMPLES = st.lists(
    st.tuples(CAPTIONS, st.lists(CAPTIONS, min_size=1, max_size=4)), min_size=1, max_size=6
)
REFERENCES = [
    [caption_words("a dog runs over the green grass"), caption_words("the dog is running")],
    [caption_words("two men play chess in a park")],
    [
        caption_words("a child eats"),
        caption_words("a small child eats an apple"),
        caption_words("the child eats"),
    ],
]


def theirs(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    _, scores = Cider().compute_score(
        {i: [" ".join(words) for words in right] for i, right in enumerate(references)},
        {i: [" ".join(words)] for i, words in enumerate(hypotheses)},
    )
    return list(scores)


@given(EXAMPLES)
def test_scores_are_those_of_pycocoevalcap(examples: list[tuple[Words, list[Words]]]) -> None:
    hypotheses, references = zip(*examples, strict=True)
    assume(any(words for right in references for words in right))  # theirs fails without any
    ours = CiderD(references).score(range(len(examples)), hypotheses)
    assert ours == pytest.approx(theirs(hypotheses, references), abs=1e-9)


@pytest.mark.parametrize(
    "hypothesis",
    [
        "a dog runs over the green grass",
        "a dog dog dog runs the the the the",
        "unheard of words",
        "dog",
        "",
        "a dog runs over the green grass " * 4,
    ],
)
def test_corner_cases_are_those_of_pycocoevalcap(hypothesis: str) -> None:
    hypotheses = [hypothesis.split() for _ in REFERENCES]
    ours = CiderD(REFERENCES).score([0, 1, 2], hypotheses)
    assert ours == pytest.approx(theirs(hypotheses, REFERENCES), abs=1e-9)


def test_the_only_reference_scores_ten() -> None:
    assert CiderD(REFERENCES).score([1], [REFERENCES[1][0]]) == pytest.approx([10])


def test_pictures_are_scored_in_any_order_and_number() -> None:
    scorer = CiderD(REFERENCES)
    first, second, third = ["a", "dog"], ["a", "child", "eats"], ["men", "play", "chess"]
    alone = [scorer.score([0], [first]), scorer.score([2], [second]), scorer.score([0], [third])]
    assert scorer.score([0, 2, 0], [first, second, third]) == [score for [score] in alone]


def test_document_frequencies_are_those_of_the_corpus() -> None:
    only = CiderD(REFERENCES[:2]).score([0], [["dog"]])
    assert CiderD(REFERENCES).score([0], [["dog"]]) != only
    assert CiderD(REFERENCES[:1]).score([0], [REFERENCES[0][0]]) == [0]  # idf 0 throughout


def test_a_caption_that_breaks_off_scores_less_where_its_end_counts() -> None:
    marked = [[[*words, END_MARK] for words in right] for right in REFERENCES]
    whole, broken = [*marked[1][0]], marked[1][0][:-1]
    finished, truncated = CiderD(marked).score([1, 1], [whole, broken])
    assert truncated < finished == pytest.approx(10)


def test_words_may_be_ids() -> None:
    vocabulary = sorted({word for right in REFERENCES for words in right for word in words})
    ids = [[[vocabulary.index(word) for word in words] for words in right] for right in REFERENCES]
    assert CiderD(ids).score([2, 0], [ids[2][1], ids[2][0]]) == CiderD(REFERENCES).score(
        [2, 0], [REFERENCES[2][1], REFERENCES[2][0]]
    )
