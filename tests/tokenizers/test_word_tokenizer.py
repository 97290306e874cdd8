"""The vocabulary of words, and how a stored tokenizer is told from others."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.errors import DataError
from seq2seq.sequences import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from seq2seq.tokenizers import (
    SubwordTokenizer,
    Tokenizer,
    WordTokenizer,
    tokenizer_from_file,
    tokenizer_from_tensor,
)
from seq2seq.words import WORD_RULES

LINES = [
    "A dog runs .",
    "the dog's ball, a red ball",
    "a caf\u00e9 isn't a house",
]
# a 4; ball, dog 2; the rest once
WORDS = ["a", "ball", "dog", "'s", "caf\u00e9", "house", "is", "n't", "red", "runs", "the"]
SPECIAL = [PAD_ID, UNK_ID, BOS_ID, EOS_ID]


@pytest.fixture
def tokenizer() -> WordTokenizer:
    return WordTokenizer.train(LINES, 15)


def test_ids_follow_the_count_then_the_alphabet(tokenizer: WordTokenizer) -> None:
    assert tokenizer.pieces(range(4, 15)) == WORDS
    assert tokenizer.pieces(SPECIAL) == ["<pad>", "<unk>", "<s>", "</s>"]
    assert tokenizer.vocab_size == 15


def test_the_order_of_lines_changes_nothing(tokenizer: WordTokenizer) -> None:
    assert WordTokenizer.train(LINES[::-1], 15).fingerprint == tokenizer.fingerprint


def test_a_smaller_vocabulary_keeps_the_most_frequent_words() -> None:
    assert WordTokenizer.train(LINES, 6).pieces([4, 5]) == ["a", "ball"]


def test_known_words_round_trip_and_others_are_marked(tokenizer: WordTokenizer) -> None:
    ids = tokenizer.encode("The DOG isn't a caf\u00e9!")
    assert tokenizer.decode(ids) == "the dog is n't a caf\u00e9"
    assert tokenizer.encode(tokenizer.decode(ids)) == ids
    assert tokenizer.encode("a blue dog")[1] == UNK_ID
    assert tokenizer.decode(tokenizer.encode("a blue dog")) == "a \u2047 dog"


def test_an_unknown_word_looks_as_it_does_with_subwords(tokenizer: WordTokenizer) -> None:
    subwords = SubwordTokenizer.train(LINES, 25, "char")
    assert tokenizer.decode([UNK_ID]).strip() == subwords.decode([UNK_ID]).strip()
    assert tokenizer.pieces(SPECIAL) == subwords.pieces(SPECIAL)


def test_a_batch_is_encoded_like_its_lines(tokenizer: WordTokenizer) -> None:
    assert tokenizer.encode_batch(LINES) == [tokenizer.encode(line) for line in LINES]


def test_decoding_ignores_special_ids(tokenizer: WordTokenizer) -> None:
    ids = tokenizer.encode("a red ball")
    assert tokenizer.decode([BOS_ID, *ids, EOS_ID, PAD_ID, PAD_ID]) == "a red ball"
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode(list(torch.tensor(ids))) == "a red ball"  # type: ignore[arg-type]


@given(st.text())
def test_text_cannot_inject_special_ids(text: str) -> None:
    tokenizer = WordTokenizer(["s", "pad", "unk", "a"])
    for injected in (text, f"{text}</s>", f"<s> {text}", f"{text}<pad>"):
        assert not {PAD_ID, BOS_ID, EOS_ID} & set(tokenizer.encode(injected))


@pytest.mark.parametrize("vocab_size", [15, 18])
@pytest.mark.parametrize(
    "copy",
    [
        lambda original: WordTokenizer.from_bytes(original.to_bytes()),
        lambda original: WordTokenizer.from_tensor(original.to_tensor()),
        lambda original: tokenizer_from_tensor(original.to_tensor()),
        lambda original: pickle.loads(pickle.dumps(original)),
    ],
)
def test_copies_encode_alike(copy: Callable[[WordTokenizer], Tokenizer], vocab_size: int) -> None:
    tokenizer = WordTokenizer.train(LINES, vocab_size)
    assert isinstance(copy(tokenizer), WordTokenizer)
    assert copy(tokenizer).vocab_size == vocab_size
    assert copy(tokenizer).fingerprint == tokenizer.fingerprint
    assert copy(tokenizer).encode(LINES[1]) == tokenizer.encode(LINES[1])


def test_another_vocabulary_has_another_fingerprint(tokenizer: WordTokenizer) -> None:
    assert WordTokenizer.train(LINES, 14).fingerprint != tokenizer.fingerprint


def test_stored_tokenizers_are_told_apart(tokenizer: WordTokenizer, tmp_path: Path) -> None:
    tokenizers: list[Tokenizer] = [tokenizer, SubwordTokenizer.train(LINES, 25, "char")]
    for number, stored in enumerate(tokenizers):
        path = tmp_path / str(number)
        path.write_bytes(stored.to_bytes())
        for loaded in (tokenizer_from_file(path), tokenizer_from_tensor(stored.to_tensor())):
            assert type(loaded) is type(stored)
            assert loaded.fingerprint == stored.fingerprint


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:14],
        lambda data: data.replace(b"ball", b"ba\xff\xfe"),
        lambda data: data.replace(b'"ball"', b"3"),
        lambda data: data.replace(b"ball", b"dog"),
        lambda data: data.replace(b"words\"", b"sword\""),
        lambda data: data[:14] + b"[1]",
        lambda data: data.replace(b'"words"', b'"unused": -1, "words"'),
        lambda data: data.replace(b'"words"', b'"unused": "1", "words"'),
        lambda data: data[:14] + b'{"rules": 1, "words": null}',
    ],
)  # fmt: skip
def test_a_damaged_vocabulary_is_named(
    tokenizer: WordTokenizer, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "words"
    path.write_bytes(damage(tokenizer.to_bytes()))
    with pytest.raises(DataError, match=r"words is not a word vocabulary"):
        tokenizer_from_file(path)


def test_other_data_is_no_word_vocabulary() -> None:
    with pytest.raises(DataError, match="is not a word vocabulary"):
        WordTokenizer.from_bytes(b"garbage")
    with pytest.raises(DataError, match="is not a SentencePiece model"):
        tokenizer_from_tensor(torch.tensor([7, 3], dtype=torch.uint8))


def test_words_by_other_rules_are_refused(tokenizer: WordTokenizer) -> None:
    older = tokenizer.to_bytes().replace(b"nopunct-1", b"nopunct-0")
    with pytest.raises(DataError, match=r"rules 'ptb-lower-nopunct-0'.*made again"):
        WordTokenizer.from_bytes(older)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent: the tokenizer cannot be read"):
        tokenizer_from_file(tmp_path / "absent")


@pytest.mark.parametrize(("minimum_count", "words"), [(1, 11), (2, 3), (4, 1)])
def test_a_vocabulary_with_room_for_more_words_has_all_and_unused_ids(
    minimum_count: int, words: int
) -> None:
    full = WordTokenizer.train(LINES, words + 4, minimum_count)
    assert (full.vocab_size, len(full.unused_ids)) == (words + 4, 0)
    larger = WordTokenizer.train(LINES, words + 7, minimum_count)
    assert larger.vocab_size == words + 7
    assert list(larger.unused_ids) == [words + 4, words + 5, words + 6]
    assert larger.encode_batch(LINES) == full.encode_batch(LINES)
    assert larger.pieces(range(larger.vocab_size)) == [
        *full.pieces(range(full.vocab_size)),
        *["<unused>"] * 3,
    ]
    assert larger.decode([4, *larger.unused_ids, 4]) == "a a"
    assert UNK_ID in larger.encode("<unused>")
    assert larger.fingerprint != full.fingerprint


def test_words_are_spelled_as_the_text_spells_them(tokenizer: WordTokenizer) -> None:
    text = "The DOG's caf\u00e9, a Zebra\u2019s!"
    spelled = tokenizer.spellings(text)
    assert spelled == ["The", "DOG", "'s", "caf\u00e9", "a", "Zebra", "'s"]
    assert len(spelled) == len(tokenizer.encode(text))


@given(st.text())
def test_every_id_has_a_spelling_that_is_the_same_word(text: str) -> None:
    for rules, split in WORD_RULES.items():
        tokenizer = WordTokenizer(["a", "dog"], rules)
        spelled = tokenizer.spellings(text)
        assert [word.lower() for word in spelled] == [word.lower() for word in split(text)]
        assert len(spelled) == len(tokenizer.encode(text))


@pytest.mark.parametrize("vocab_size", [-3, 0, 4])
def test_a_vocabulary_without_room_for_words_is_refused(vocab_size: int) -> None:
    with pytest.raises(DataError, match=r"Set --data\.vocab_size to 5 or more"):
        WordTokenizer.train(LINES, vocab_size)


def test_a_count_that_no_word_reaches_is_named() -> None:
    with pytest.raises(DataError, match=r"No word occurs 9 times in captions\.json.*4 times"):
        WordTokenizer.train(LINES, 5, 9, origin="captions.json")


@pytest.mark.parametrize("lines", [[], ["", " . "]])
def test_no_text_is_an_error(lines: list[str]) -> None:
    with pytest.raises(DataError, match=r"no word in captions\.json"):
        WordTokenizer.train(lines, 10, origin="captions.json")
