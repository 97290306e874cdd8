"""A first look at labelled texts: their classes, and which of them are for validation."""

import hashlib
import json
from array import array
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from datamodules.cache import require_prepared
from datamodules.faults import Fault, Faults, some_of
from datamodules.review_files import ReviewSource
from datamodules.review_formats import Review
from seq2seq.appearing import appearing
from seq2seq.errors import DataError
from seq2seq.tokenizers import LABEL_SEPARATOR, LabelVocabulary


def label_text(review: Review) -> str:
    """Return the labels of a review as the text that a ``LabelVocabulary`` encodes."""
    return LABEL_SEPARATOR.join(review.labels)


class Bounds(NamedTuple):
    """What divides the training reviews of one class: a share of all draws, from the lowest.

    Attributes:
        test: Draws below it are for the test.
        val: Other draws below it are for validation.
    """

    test: int
    val: int


class Survey(NamedTuple):
    """What the reviews of a source have in common.

    Attributes:
        classes: The labels of training, sorted.
        bounds: What divides the training reviews, by their labels.
        seed: Of the draws.
    """

    classes: tuple[str, ...]
    bounds: Mapping[str, Bounds]
    seed: int

    def split_of(self, review: Review) -> str:
        """Return the split of a review: ``train``, ``val`` or ``test``."""
        if review.split in ("val", "test"):
            return review.split
        draw = _draw(self.seed, review.text)
        bounds = self.bounds[label_text(review)]
        return "test" if draw < bounds.test else "val" if draw < bounds.val else "train"

    def uses_of(self, review: Review, train_on_val: bool) -> tuple[str, ...]:
        """Return the splits that a review is used in: its own, and perhaps training."""
        split = self.split_of(review)
        return ("train", "val") if split == "val" and train_on_val else (split,)

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str) -> "Survey":
        """Load what ``to_json`` gave."""
        fields = json.loads(text)
        bounds = {label: Bounds(*pair) for label, pair in fields["bounds"].items()}
        return cls(tuple(fields["classes"]), bounds, fields["seed"])


def survey_reviews(
    source: ReviewSource, shares: Mapping[str, float], label_steps: int = 1, seed: int = 1
) -> Survey:
    """Look at all reviews once.

    What the source says of splits stays. Of the rest, and of what it calls training, a share of
    each class is drawn for the splits that it does not name. The draw depends on the text and the
    seed, not on the order: a review that is there twice is never in two of these splits. No text
    is kept in memory.

    Args:
        source: The reviews.
        shares: Share of what would be training that becomes ``val`` and ``test``.
        label_steps: How many labels each review has.
        seed: Of the draw.

    Raises:
        DataError: If reviews cannot be used, have another number of labels, only some have a split,
            nothing is there to train on, or training lacks a label of the others.
    """
    draws: dict[str, array[int]] = {}
    trained: set[str] = set()
    elsewhere: dict[str, str] = {}
    named: set[str | None] = set()
    without_split = ""
    faults = Faults(source.path, "the labels cannot be used")
    fault = Fault(
        f"reviews with another number of labels than {label_steps}",
        "Mend them, or set --data.label_steps; --data.label_separator is what stands between "
        "labels.",
    )
    for review in source:
        if len(review.labels) != label_steps:
            faults.add(fault, f"{review.place} ({len(review.labels)}: {', '.join(review.labels)})")
        named.add(review.split)
        without_split = without_split or ("" if review.split else review.place)
        if review.split in ("val", "test"):
            for label in review.labels:
                elsewhere.setdefault(label, f"{label!r} ({review.split}: {review.place})")
        else:
            trained.update(review.labels)
            known = draws.setdefault(label_text(review), array("Q"))
            known.append(_draw(seed, review.text))
    faults.raise_all()
    if len(named) > 1 and None in named:
        raise DataError(
            f"{source.path}: some reviews name a split, and others do not ({without_split}). Name "
            "one for each, or for none."
        )
    if not draws:
        raise DataError(f"{source.path}: has no reviews for training. Give a source with some.")
    lacking = [place for label, place in sorted(elsewhere.items()) if label not in trained]
    if lacking:
        raise DataError(
            f"{source.path}: labels that training lacks ({len(lacking)}): {some_of(lacking)}. "
            "Give training reviews of them, take them out of the other splits, or say with "
            "--data.labels which labels are the same."
        )
    wanted = {split: share for split, share in shares.items() if split not in named}
    bounds = {label: _bounds(drawn, wanted) for label, drawn in sorted(draws.items())}
    return Survey(tuple(sorted(trained)), bounds, seed)


def label_vocabulary(source: Path, survey: Survey, num_classes: int) -> LabelVocabulary:
    """Return the classes: the labels of the training reviews, in sorted order.

    Args:
        source: Where they come from.
        survey: What was found there.
        num_classes: How many labels there must be.

    Raises:
        DataError: If there are more or fewer, or some cannot be used.
    """
    if len(survey.classes) != num_classes:
        raise DataError(
            f"{source}: the training reviews have {len(survey.classes)} labels "
            f"({some_of(map(repr, survey.classes))}), not {num_classes}. "
            f"Set --data.num_classes={len(survey.classes)}."
        )
    return LabelVocabulary.of(survey.classes, str(source))


def check_labels(
    source: ReviewSource, shares: Mapping[str, float], label_steps: int, num_classes: int
) -> None:
    """Check what no file alone tells: whether the labels of all of them can be used together.

    Raises:
        DataError: As ``survey_reviews`` and ``label_vocabulary``, or if files cannot be used.
    """
    try:
        survey = survey_reviews(source, shares, label_steps)
    except DataError:
        try:
            deque(source, maxlen=0)
        except DataError as error:
            raise DataError(
                f"{source.path}: the labels are not checked, as there are files that cannot be "
                "used. Mend those first."
            ) from error
        raise
    label_vocabulary(source.path, survey, num_classes)


def _draw(seed: int, text: str) -> int:
    """Return a number below 2**64 that depends on the text and the seed alone."""
    digest = hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _bounds(draws: "array[int]", shares: Mapping[str, float]) -> Bounds:
    """Return what divides the reviews with these draws; the highest draw stays in training."""
    ordered = sorted(draws)
    test = round(shares.get("test", 0.0) * len(ordered))
    val = test + round(shares.get("val", 0.0) * len(ordered))
    last = len(ordered) - 1
    return Bounds(ordered[min(test, last)], ordered[min(val, last)])


def make_survey(
    path: Path, source: ReviewSource, shares: Mapping[str, float], label_steps: int, seed: int
) -> None:
    """Leave what ``survey_reviews`` returns in ``path``, unless that has been done.

    Raises:
        DataError: As ``survey_reviews``, or if nothing can be written there.
    """
    if not path.is_file():
        survey = survey_reviews(source, shares, label_steps, seed)
        with appearing(path) as partial:
            partial.write_text(survey.to_json(), encoding="utf-8")


def load_survey(path: Path) -> Survey:
    """Load what ``make_survey`` left.

    Raises:
        DataError: If it is not there, or damaged.
    """
    require_prepared(path)
    try:
        return Survey.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise DataError(f"{path} is damaged ({error}). Delete it: it is made anew.") from error
