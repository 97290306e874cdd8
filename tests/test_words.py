"""The words of captions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.words import UNKNOWN_WORD, caption_words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog runs .", "a dog runs"),
        ("A dog RUNS!!!", "a dog runs"),
        ("a man's dog doesn't bark", "a man 's dog does n't bark"),
        (
            "I can't, won't; they're he'll I'd we've I'm",
            "i ca n't wo n't they 're he 'll i 'd we 've i 'm",
        ),
        ("couldn't've", "could n't 've"),
        ("man 's do n't", "man 's do n't"),
        ("we cannot , they wanna", "we can not they wan na"),
        ("the dogs' bowl and 'hello' and \"quoted\"", "the dogs bowl and hello and quoted"),
        ("it\u2019s a \u201cman\u201d isn`t \u2018a\u2019", "it 's a man is n't a"),
        ("o'clock O'Brien", "o'clock o'brien"),
        ("black-and-white T-shirts and/or X-man's", "black-and-white t-shirts and/or x-man 's"),
        ("wait... what?! -- - shirt\u2014dash", "wait what shirt dash"),
        ("[no] (yes) {and} <b> /or\\ _x_", "no yes and b or x"),
        ("2,000 people at 10:30 , 3.5 % of 1/2", "2,000 people at 10:30 3.5 % of 1/2"),
        ("2, 3 and 4: #7 & $5.00 @ home", "2 3 and 4 # 7 & $ 5.00 @ home"),
        ("Mr. Smith in the U.S. at 6 a.m.", "mr. smith in the u.s. at 6 a.m."),
        ("two men,three women;one", "two men three women one"),
        ("Caf\u00c9 na\u00efve \u00bfQu\u00e9?", "caf\u00e9 na\u00efve qu\u00e9"),
        ("\u4e2d\u6587\u3002\u4e2d", "\u4e2d\u6587 \u4e2d"),
        ("\tone\u00a0two\nthree ", "one two three"),
        ("", ""),
        (" . ?! '' ", ""),
    ],
)
def test_words_are_those_of_the_treebank_without_punctuation(text: str, expected: str) -> None:
    assert caption_words(text) == expected.split()


def test_composed_and_decomposed_letters_are_one() -> None:
    assert caption_words("cafe\u0301") == caption_words("CAF\u00c9") == ["caf\u00e9"]


def test_vowel_signs_stay_in_their_word() -> None:
    word = "\u0939\u093f\u0928\u094d\u0926\u0940"
    assert caption_words(f"{word}\u0964") == [word]


def test_the_mark_of_an_unknown_word_is_a_word() -> None:
    assert caption_words(f"a {UNKNOWN_WORD} dog .") == ["a", UNKNOWN_WORD, "dog"]


@given(st.text() | st.text(alphabet="amnrtsd'. ,-&1:/_", max_size=12))
def test_words_have_no_space_and_are_their_own_words(text: str) -> None:
    words = caption_words(text)
    assert caption_words(" ".join(words)) == words
    assert all(word and word.split() == [word] for word in words)
