"""The words of a caption, as caption metrics and word vocabularies count them."""

import re
import sys
import unicodedata

CAPTION_TOKENIZER = "ptb-lower-nopunct-1"
"""Names the rules of ``caption_words``; a change of theirs must change it."""

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
