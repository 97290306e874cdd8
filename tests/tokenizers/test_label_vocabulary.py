"""The vocabulary of labels: one or several of them are a text."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from seq2seq.errors import DataError
from seq2seq.sequences import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from seq2seq.tokenizers import (
    FIRST_LABEL_ID,
    LABEL_SEPARATOR,
    LabelVocabulary,
    SubwordTokenizer,
    Tokenizer,
    WordTokenizer,
    tokenizer_from_file,
    tokenizer_from_tensor,
)

NAMES = ["push", "left", "stand to sit", "caf\u00e9", "right", "Left"]
SPECIAL = [PAD_ID, UNK_ID, BOS_ID, EOS_ID]


@pytest.fixture
def vocabulary() -> LabelVocabulary:
    return LabelVocabulary.of(NAMES)


def test_ids_follow_the_sorted_names(vocabulary: LabelVocabulary) -> None:
    expected = ("Left", "caf\u00e9", "left", "push", "right", "stand to sit")
    assert vocabulary.names == expected
    assert tuple(vocabulary.pieces(range(FIRST_LABEL_ID, vocabulary.vocab_size))) == expected
    assert vocabulary.vocab_size == FIRST_LABEL_ID + 6


def test_special_ids_are_spelled_as_in_other_vocabularies(vocabulary: LabelVocabulary) -> None:
    assert vocabulary.pieces(SPECIAL) == WordTokenizer(["a"]).pieces(SPECIAL)


def test_the_order_of_names_changes_nothing(vocabulary: LabelVocabulary) -> None:
    assert LabelVocabulary.of(reversed(NAMES)).fingerprint == vocabulary.fingerprint


@pytest.mark.parametrize("text", ["push", "push;left", "stand to sit;caf\u00e9;Left;push;push"])
def test_texts_round_trip(vocabulary: LabelVocabulary, text: str) -> None:
    ids = vocabulary.encode(text)
    assert len(ids) == len(text.split(LABEL_SEPARATOR))
    assert vocabulary.decode(ids) == text
    assert vocabulary.pieces(ids) == text.split(LABEL_SEPARATOR)
    assert vocabulary.decode([BOS_ID, *ids, EOS_ID, PAD_ID]) == text
    assert vocabulary.decode(list(torch.tensor(ids))) == text  # type: ignore[arg-type]


def test_a_batch_is_encoded_like_its_texts(vocabulary: LabelVocabulary) -> None:
    assert vocabulary.encode_batch(["push", "left;right"]) == [[7], [6, 8]]


def test_an_unknown_label_in_an_output_is_seen(vocabulary: LabelVocabulary) -> None:
    marked = WordTokenizer(["a"]).decode([UNK_ID])
    assert vocabulary.decode([UNK_ID, FIRST_LABEL_ID]) == f"{marked};Left"
    assert vocabulary.decode([]) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("push;lift", r"'lift' is none of the 6 labels; the closest are 'Left', 'left', "),
        ("STAND TO SIT", r"'STAND TO SIT' .*; the closest are 'stand to sit', "),
        ("push; left", r"' left' is none of .*train with examples of it"),
        ("push;;left", r"'' is none of the 6 labels"),
        ("", r"'' is none of the 6 labels"),
        ("</s>", r"'</s>' is none of the 6 labels"),
    ],
)
def test_an_unknown_label_is_named_with_the_closest(
    vocabulary: LabelVocabulary, text: str, expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        vocabulary.encode(text)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], r"labels\.txt: a classifier needs two labels or more, there is none\."),
        (["a"], r"needs two labels or more, there is only 'a'\."),
        (["b", "a", "b"], r"labels\.txt: labels that come twice: 'b'\. Name each class once"),
        (["a", ""], r"labels\.txt: a label without a name"),
        (["a", "  "], r"a label without a name"),
        (["a", "c;d", "b"], r"labels with ';', which stands between labels: 'c;d'\. Rename"),
        (["", "", ";"], r"(?s)bad labels\..*twice.*without a name.*with ';'"),
    ],
)
def test_bad_names_are_refused(names: list[str], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        LabelVocabulary.of(names, "labels.txt")


@pytest.mark.parametrize(
    "copy",
    [
        lambda original: LabelVocabulary.from_bytes(original.to_bytes()),
        lambda original: LabelVocabulary.from_tensor(original.to_tensor()),
        lambda original: tokenizer_from_tensor(original.to_tensor()),
        lambda original: pickle.loads(pickle.dumps(original)),
    ],
)
def test_copies_encode_alike(
    vocabulary: LabelVocabulary, copy: Callable[[LabelVocabulary], Tokenizer]
) -> None:
    copied = copy(vocabulary)
    assert isinstance(copied, LabelVocabulary)
    assert copied.names == vocabulary.names
    assert copied.fingerprint == vocabulary.fingerprint


def test_other_labels_have_another_fingerprint(vocabulary: LabelVocabulary) -> None:
    assert LabelVocabulary.of(NAMES[1:]).fingerprint != vocabulary.fingerprint
    assert LabelVocabulary.of(["ab", "c"]).fingerprint != WordTokenizer(["ab", "c"]).fingerprint


def test_every_kind_of_stored_tokenizer_is_told_apart(
    vocabulary: LabelVocabulary, tmp_path: Path
) -> None:
    lines = ["a dog runs", "the red ball"]
    kinds: list[Tokenizer] = [
        vocabulary,
        WordTokenizer(["a", "dog"]),
        SubwordTokenizer.train(lines, 18, "char"),
    ]
    for number, stored in enumerate(kinds):
        path = tmp_path / str(number)
        path.write_bytes(stored.to_bytes())
        for loaded in (tokenizer_from_file(path), tokenizer_from_tensor(stored.to_tensor())):
            assert type(loaded) is type(stored)
            assert loaded.fingerprint == stored.fingerprint


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:15],
        lambda data: data.replace(b"push", b"pu\xff\xfe"),
        lambda data: data.replace(b'"push"', b"3"),
        lambda data: data.replace(b"push", b"left"),
        lambda data: data.replace(b"push", b"zoom"),
        lambda data: data[:15] + b'{"push": 4, "left": 5}',
    ],
)
def test_damaged_labels_are_named(
    vocabulary: LabelVocabulary, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "labels"
    path.write_bytes(damage(vocabulary.to_bytes()))
    with pytest.raises(DataError, match=r"labels is not a label vocabulary"):
        tokenizer_from_file(path)


def test_other_data_is_no_label_vocabulary() -> None:
    with pytest.raises(DataError, match=r"is not a label vocabulary \(it begins otherwise\)"):
        LabelVocabulary.from_bytes(WordTokenizer(["a"]).to_bytes())
