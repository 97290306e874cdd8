from pathlib import Path

import pytest

from datamodules.review_files import ReviewSource
from datamodules.review_formats import Layout, Review
from datamodules.review_splits import Survey, label_vocabulary, survey_reviews
from seq2seq.errors import DataError


class Listed(ReviewSource):
    """Reviews of a list, where files would be."""

    def __init__(self, reviews):
        names = {"train": "train", "val": "val", "test": "test"}
        super().__init__(Path("list.csv"), (), Layout("text", "label", None, ";", {}, names))
        object.__setattr__(self, "reviews", reviews)

    def __iter__(self):
        return iter(self.reviews)


def listed(*rows):
    """Return reviews, each of ``label text split``; a split of ``-`` is none."""
    found = []
    for number, row in enumerate(rows, start=2):
        label, text, split = row.split()
        known = None if split == "-" else split
        found.append(Review(text, tuple(label.split(";")), known, f"list.csv:{number}"))
    return found


# Three classes of 20, 10 and 5 reviews, sorted by class.
CLASSES = {"good": 20, "bad": 10, "so": 5}
REVIEWS = listed(*(f"{name} {name}{n} -" for name, count in CLASSES.items() for n in range(count)))


def divide(reviews, val=0.0, test=0.0, seed=1, **options):
    """Return the texts of each split."""
    survey = survey_reviews(Listed(reviews), {"val": val, "test": test}, seed=seed, **options)
    found = {"train": [], "val": [], "test": []}
    for review in reviews:
        found[survey.split_of(review)].append(review.text)
    return found


def test_splits_of_the_source_stay_whatever_the_shares():
    found = divide(listed("a 1 train", "b 2 train", "a 3 val", "b 4 test"), val=0.5, test=0.4)
    assert found == {"train": ["1", "2"], "val": ["3"], "test": ["4"]}


def test_without_shares_all_is_training():
    assert divide(REVIEWS)["train"] == [review.text for review in REVIEWS]


@pytest.mark.parametrize("seed", range(5))
def test_every_class_gives_its_share(seed):
    found = divide(REVIEWS, val=0.2, test=0.4, seed=seed)
    for split, share in {"val": 0.2, "test": 0.4, "train": 0.4}.items():
        counts = {name: sum(t.startswith(name) for t in found[split]) for name in CLASSES}
        assert counts == {name: count * share for name, count in CLASSES.items()}
    texts = sorted(text for part in found.values() for text in part)
    assert texts == sorted(review.text for review in REVIEWS)


def test_only_what_is_not_named_is_drawn():
    rows = [f"{label} {label}{n} train" for label in "ab" for n in range(10)]
    found = divide(listed(*rows, "a x test"), val=0.3, test=0.5)
    assert found["test"] == ["x"]
    assert len(found["val"]) == 6


def test_the_seed_and_the_texts_decide_and_not_the_order():
    def drawn(reviews, seed):
        return frozenset(divide(reviews, val=0.3, seed=seed)["val"])

    assert drawn(REVIEWS, 3) == drawn(REVIEWS[::-1], 3)
    assert len({drawn(REVIEWS, seed) for seed in range(9)}) > 5


def test_the_test_does_not_change_with_the_validation():
    test = divide(REVIEWS, test=0.3)["test"]
    assert divide(REVIEWS, test=0.3, val=0.2)["test"] == test


@pytest.mark.parametrize("seed", range(5))
def test_a_review_that_is_there_twice_is_in_one_split(seed):
    found = divide(REVIEWS[:20] + REVIEWS[:20:3] + REVIEWS[20:], val=0.3, test=0.3, seed=seed)
    assert not set(found["train"]) & set(found["val"])
    assert not set(found["train"]) & set(found["test"])
    assert not set(found["val"]) & set(found["test"])


@pytest.mark.parametrize("share", [0.9, 0.99])
def test_training_keeps_every_class(share):
    reviews = listed("a 1 -", "b 2 -", "b 3 -", "c 4 -", "c 4 -", "c 4 -")
    found = divide(reviews, val=share)
    assert "1" in found["train"]
    assert {"2", "3"} & set(found["train"])
    assert found["train"].count("4") == 3


def test_validation_reviews_are_used_in_training_when_asked():
    survey = survey_reviews(Listed(REVIEWS), {"val": 0.2, "test": 0.4})
    for review in REVIEWS:
        split = survey.split_of(review)
        assert survey.uses_of(review, train_on_val=False) == (split,)
        expected = ("train", "val") if split == "val" else (split,)
        assert survey.uses_of(review, train_on_val=True) == expected


def test_a_survey_can_be_kept():
    survey = survey_reviews(Listed(REVIEWS), {"val": 0.2, "test": 0.1}, seed=4)
    assert Survey.from_json(survey.to_json()) == survey
    assert survey.classes == ("bad", "good", "so")


def test_the_classes_are_the_labels_of_training_sorted():
    reviews = listed(
        "good;long 1 train", "bad;long 2 train", "bad;short 3 train", "good;short 4 val"
    )
    survey = survey_reviews(Listed(reviews), {}, label_steps=2)
    assert survey.classes == ("bad", "good", "long", "short")
    assert label_vocabulary(Path("list.csv"), survey, 4).names == survey.classes
    message = r"list\.csv: .* 4 labels \('bad', .*\), not 3\. Set --data\.num_classes=4\."
    with pytest.raises(DataError, match=message):
        label_vocabulary(Path("list.csv"), survey, 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a 1 train", "b 2 val"], r"labels that training lacks \(1\): 'b' \(val: list\.csv:3\)\."),
        (["a 1 train", "b 2 test", "c 3 val", "c 4 val"], r"lacks \(2\): 'b' .*, 'c' \(val: l"),
        (["a 1 test", "b 2 test"], r"list\.csv: has no reviews for training"),
        (["a;b 1 -", "b 2 -"], r"labels than 1 \(1\): list\.csv:2 \(2: a, b\).*label_steps"),
        (["a 1 -", "b 2 val", "b 3 -"], r"others do not \(list\.csv:2\)"),
        (["a 1 train", "b 2 -"], r"some reviews name a split.*\(list\.csv:3\)"),
        ([], r"list\.csv: has no reviews for training"),
    ],
)
def test_reviews_that_cannot_be_learned_from_are_named(rows, message):
    with pytest.raises(DataError, match=message):
        survey_reviews(Listed(listed(*rows)), {"val": 0.5})
