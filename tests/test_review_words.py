"""The words of reviews, and vocabularies of words by other rules than those of captions."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.errors import DataError
from seq2seq.tokenizers import WordTokenizer, tokenizer_from_file
from seq2seq.words import CAPTION_TOKENIZER, REVIEW_TOKENIZER, UNKNOWN_WORD, review_words

LINES = ["It's NOT well-made<br />2/10", "I didn't like it!!", "like it? It's 2/10"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A GREAT film.", "a great film"),
        ("good.<br /><br />Bad", "good bad"),
        ("<i>Jaws</i> & <b class='x'>Alien</B>", "jaws alien"),
        ("I <3 it, 3 < 4 > 2", "i 3 it 3 4 2"),
        ("caf&eacute; &Eacute;t&#233; a &amp; b &lt;br&gt; c", "caf\u00e9 \u00e9t\u00e9 a b c"),
        ("R&D; AT&T", "r d at t"),
        ("don't can't isn't it's I've", "do n't ca n't is n't it 's i 've"),
        ("couldn't've", "could n't 've"),
        ("it\u2019s \u201cso\u201d bad\u2026or not\u2014no", "it 's so bad or not no"),
        ("o'clock 'quoted' the dogs'", "o clock quoted the dogs"),
        ("a must-see actor/director_duo", "a must see actor director duo"),
        ("film.It was", "film it was"),
        ("8/10, 2.5 stars, 1,000 of 3. and 80s", "8/10 2.5 stars 1,000 of 3 and 80s"),
        ("What?! No!!! ! :-)", "what ! no ! !"),
        ("a\x96b\x00c\x85d", "a b c d"),
        ("1 14 22 16", "1 14 22 16"),
        (f"an {UNKNOWN_WORD} word", f"an {UNKNOWN_WORD} word"),
        ("\tone\u00a0two\nthree ", "one two three"),
        ("", ""),
        (" ... -- ' <br/>", ""),
    ],
)
def test_words_are_lower_case_without_markup(text: str, expected: str) -> None:
    assert review_words(text) == expected.split()


@given(st.text() | st.text(alphabet="aMnrtsd'. ,-&1:/_!?<>;#\x01\x80", max_size=12))
def test_words_have_no_space_and_are_their_own_words(text: str) -> None:
    words = review_words(text)
    assert review_words(" ".join(words)) == words
    assert all(word and word.split() == [word] for word in words)


@pytest.fixture
def tokenizer() -> WordTokenizer:
    return WordTokenizer.train(LINES, 13, rules=REVIEW_TOKENIZER)


def test_a_vocabulary_counts_by_its_rules(tokenizer: WordTokenizer) -> None:
    # it 4; 's, 2/10, like 2; the rest once
    assert " ".join(tokenizer.pieces(range(4, 13))) == "it 's 2/10 like ! ? did i made"
    assert tokenizer.decode(tokenizer.encode("Like<br>it?")) == "like it ?"


def test_copies_keep_the_rules(tokenizer: WordTokenizer, tmp_path) -> None:
    path = tmp_path / "words"
    path.write_bytes(tokenizer.to_bytes())
    for copy in (tokenizer_from_file(path), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.fingerprint == tokenizer.fingerprint
        assert copy.encode("made-it!") == tokenizer.encode("made it !")


def test_rules_are_part_of_what_a_vocabulary_is() -> None:
    words = ["a", "must-see", "must", "see"]
    captions, reviews = (
        WordTokenizer(words, rules) for rules in (CAPTION_TOKENIZER, REVIEW_TOKENIZER)
    )
    assert captions.fingerprint == WordTokenizer(words).fingerprint != reviews.fingerprint
    assert captions.decode(captions.encode("must-see")) == "must-see"
    assert reviews.decode(reviews.encode("must-see")) == "must see"


@pytest.mark.parametrize("rules", ['"review-lower-0"', "[1]"])
def test_rules_that_are_not_known_are_refused(tokenizer: WordTokenizer, rules: str) -> None:
    other = tokenizer.to_bytes().replace(f'"{REVIEW_TOKENIZER}"'.encode(), rules.encode())
    with pytest.raises(DataError, match=r"rules 'review-lower-0', this version|rules have no name"):
        WordTokenizer.from_bytes(other)
