"""The words of a text, as metrics and word vocabularies count them."""

import html
import re
import sys
import unicodedata
from collections.abc import Callable

CAPTION_TOKENIZER = "ptb-lower-nopunct-1"
"""Names the rules of ``caption_words``; a change of theirs must change it."""

REVIEW_TOKENIZER = "review-lower-1"
"""Names the rules of ``review_words``; a change of theirs must change it."""

UNKNOWN_WORD = "\N{DOUBLE QUESTION MARK}"
"""What stands in a decoded text for an unknown word: a word, and a wrong one, to every metric."""


class _Characters(dict[int, int | str]):
    """A table for ``str.translate``, filled as characters come: punctuation becomes a space."""

    def __missing__(self, code: int) -> int | str:
        # That of ASCII is left to the expressions below.
        is_dropped = code > 127 and unicodedata.category(chr(code)).startswith("P")
        self[code] = " " if is_dropped else code
        return self[code]


_APOSTROPHES = (
    "\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"
    "\N{MODIFIER LETTER APOSTROPHE}\N{ACUTE ACCENT}`"
)
_HYPHENS = "\N{HYPHEN}\N{NON-BREAKING HYPHEN}"
_CHARACTERS = _Characters(
    str.maketrans(
        _APOSTROPHES + _HYPHENS + UNKNOWN_WORD,
        "'" * len(_APOSTROPHES) + "-" * len(_HYPHENS) + UNKNOWN_WORD,
    )
)

# All but white space and ASCII's punctuation: `\w` would leave out the vowel signs of many scripts.
_LETTER = r"[^\s!-/:-@\[-`{-~]"
_CLITIC = r"'(?:s|m|d|re|ve|ll)"
_ENDING = rf"(?:n't|{_CLITIC})"
_CONTRACTION = re.compile(rf"(?<={_LETTER})({_ENDING})(?={_ENDING}*(?!{_LETTER}))")
_TOKEN = re.compile(
    rf"""
      (?:mr|mrs|ms|dr|st|jr|sr|vs|etc)\.(?!{_LETTER})
    | (?:{_LETTER}\.){{2,}}(?!{_LETTER})                              # u.s.
    | {_CLITIC}(?!{_LETTER})
    | {_LETTER}+(?:(?:[-.'/&@_]|(?<=\d)[,:](?=\d)){_LETTER}+)*        # t-shirt  o'clock  2,000
    | [#$%&+=@]                                                       # symbols that are read aloud
    """,
    re.VERBOSE,
)
# Tags need a letter: "<3" is none. Entities need their semicolon: "R&D" has none.
_TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d+|#x[\da-f]+|[a-z]+\d*);", re.IGNORECASE)
# Old files have control characters where Windows has dashes.
_REVIEW_LETTER = rf"{_LETTER[:-1]}\x00-\x1f\x7f-\x9f]"
_REVIEW_TOKEN = re.compile(
    rf"""
      n't(?!{_LETTER})
    | {_CLITIC}(?!{_LETTER})
    | \d+(?:[.,:/]\d+)+(?!{_LETTER})          # 7/10  2.5
    | {_REVIEW_LETTER}+
    | [!?](?![!?])
    """,
    re.VERBOSE,
)
_TWO_WORDS = {
    "cannot": ("can", "not"),
    "gimme": ("gim", "me"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "lemme": ("lem", "me"),
    "wanna": ("wan", "na"),
}


def caption_words(text: str) -> list[str]:
    """Return the words of a caption: lower case, contractions split, punctuation left out.

    What the Penn Treebank tokeniser of the COCO caption evaluation makes of a caption, without
    Java: ``A man's T-shirt doesn't fit.`` has the words ``a man 's t-shirt does n't fit``. Brackets
    are punctuation too; that evaluation leaves them in, spelled ``-lrb-``.

    Words joined by spaces have these same words again.
    """
    text = unicodedata.normalize("NFC", text.lower()).translate(_CHARACTERS)
    words: list[str] = []
    for token in _TOKEN.findall(_CONTRACTION.sub(r" \1", text)):
        words += _TWO_WORDS.get(token, (token,))
    # Interned, a word is one object wherever it occurs: n-grams are found faster.
    return list(map(sys.intern, words))


def review_words(text: str) -> list[str]:
    """Return the words of a review: lower case, without markup, contractions split.

    Of punctuation only ``!`` and ``?`` are words, one for several in a row. Compounds are not, as
    many of them would be too rare to be learned: ``It's a must-see!!!<br />I don't regret it 8/10``
    has the words ``it 's a must see ! i do n't regret it 8/10``.

    Words joined by spaces have these same words again.
    """
    if "<" in text or "&" in text:
        text = _TAG.sub(" ", _ENTITY.sub(_spell_out, text))
    text = unicodedata.normalize("NFC", text.lower()).translate(_CHARACTERS)
    words: list[str] = []
    for part in text.replace("n't", " n't").split():
        # Most parts are words already, which is found out sooner than by an expression.
        words += (part,) if part.isalnum() else _REVIEW_TOKEN.findall(part)
    return words


def _spell_out(entity: re.Match[str]) -> str:
    return html.unescape(entity[0])


WORD_RULES: dict[str, Callable[[str], list[str]]] = {
    CAPTION_TOKENIZER: caption_words,
    REVIEW_TOKENIZER: review_words,
}
"""What splits a text into words, by the names of the rules."""
