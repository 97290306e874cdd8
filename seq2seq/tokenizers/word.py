"""Tokenisation into whole words."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from seq2seq.errors import DataError
from seq2seq.sequences import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from seq2seq.words import CAPTION_TOKENIZER, UNKNOWN_WORD, WORD_RULES

# Spelled as SentencePiece spells them.
_SPECIAL_PIECES = {PAD_ID: "<pad>", UNK_ID: "<unk>", BOS_ID: "<s>", EOS_ID: "</s>"}
_UNUSED_PIECE = "<unused>"
# No SentencePiece model begins like this: to its format, "s" opens a field that it does not know.
WORDS_MAGIC = b"seq2seq words\n"


class WordTokenizer:
    """A vocabulary of words by named rules; others are unknown.

    Instances can be pickled, so that loader workers may be spawned.

    Args:
        words: The words in the order of their ids, which begin after the special ones.
        rules: What splits a text into words, a name of ``WORD_RULES``.
        unused: How many ids come after the words, that no text has.

    Attributes:
        vocab_size: Number of all ids: special ones, those of words, and unused ones.
        unused_ids: Those that no text has.
        fingerprint: A hash of the words and the rules they are made by, hexadecimal.
    """

    def __init__(
        self, words: Sequence[str], rules: str = CAPTION_TOKENIZER, unused: int = 0
    ) -> None:
        self._words = tuple(words)
        self._rules = rules
        self._split = WORD_RULES[rules]
        special = (_SPECIAL_PIECES[i] for i in range(len(_SPECIAL_PIECES)))
        self._pieces = (*special, *self._words, *[_UNUSED_PIECE] * unused)
        marks = (UNKNOWN_WORD if i == UNK_ID else "" for i in range(len(_SPECIAL_PIECES)))
        self._decoded = (*marks, *self._words, *[""] * unused)
        self._ids = {word: i for i, word in enumerate(self._words, start=len(_SPECIAL_PIECES))}
        self.vocab_size = len(self._pieces)
        self.unused_ids = range(self.vocab_size - unused, self.vocab_size)
        self.fingerprint = hashlib.blake2b(self.to_bytes(), digest_size=16).hexdigest()

    @classmethod
    def train(
        cls,
        sentences: Iterable[str],
        vocab_size: int,
        minimum_count: int = 1,
        vocab_size_option: str = "--data.vocab_size",
        origin: str = "the training text",
        rules: str = CAPTION_TOKENIZER,
    ) -> "WordTokenizer":
        """Take the most frequent words; of equally frequent ones, the first in the alphabet.

        Where there are fewer words than there is room for, all are taken, and ids stay unused.

        Args:
            sentences: Training text, one line each.
            vocab_size: Number of ids, special ones included.
            minimum_count: How often a word has to occur.
            vocab_size_option: Where the user sets ``vocab_size``, for error messages.
            origin: Where the sentences come from, for error messages.
            rules: What splits a text into words, a name of ``WORD_RULES``.

        Raises:
            DataError: If ``vocab_size`` has no room for a word, or the text has no word.
        """
        counts = Counter(chain.from_iterable(map(WORD_RULES[rules], sentences)))
        if not counts:
            raise DataError(f"A tokenizer needs text, but there is no word in {origin}.")
        frequent = [word for word, count in counts.items() if count >= minimum_count]
        if not frequent:
            raise DataError(
                f"No word occurs {minimum_count} times in {origin}, the most frequent one "
                f"{max(counts.values())} times. Lower the minimum count."
            )
        wanted = vocab_size - len(_SPECIAL_PIECES)
        if wanted < 1:
            raise DataError(
                f"A vocabulary of {vocab_size} has no room for a word beside "
                f"{len(_SPECIAL_PIECES)} special ids. Set {vocab_size_option} to "
                f"{len(_SPECIAL_PIECES) + 1} or more."
            )
        words = sorted(frequent, key=lambda word: (-counts[word], word))[:wanted]
        return cls(words, rules, wanted - len(words))

    @classmethod
    def from_bytes(cls, data: bytes, origin: str = "the given tokenizer") -> "WordTokenizer":
        """Load what ``to_bytes`` gave.

        Raises:
            DataError: If ``data`` is something else, is damaged, or its words were made by
                rules that this version does not know.
        """
        try:
            if not data.startswith(WORDS_MAGIC):
                raise ValueError("it begins otherwise")
            content = json.loads(data[len(WORDS_MAGIC) :])
            rules, words, unused = content["rules"], content["words"], content.get("unused", 0)
            if not all(isinstance(word, str) for word in words) or len(set(words)) < len(words):
                raise ValueError("its words are not different words")
            if not isinstance(rules, str):
                raise ValueError("its rules have no name")
            if not isinstance(unused, int) or unused < 0:
                raise ValueError("its unused ids have no number")
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{origin} is not a word vocabulary ({error}). "
                "Give a file that this project wrote, or none to have one made."
            ) from error
        if rules not in WORD_RULES:
            raise DataError(
                f"{origin} has words by the rules {rules!r}, this version knows "
                f"{' and '.join(map(repr, WORD_RULES))}. Have the vocabulary made again, and train "
                "with it."
            )
        return cls(words, rules, unused)

    @classmethod
    def from_tensor(cls, data: Tensor) -> "WordTokenizer":
        """Load what ``to_tensor`` gave, uint8 ``(bytes,)``."""
        return cls.from_bytes(_to_bytes(data))

    def to_bytes(self) -> bytes:
        """Return the words and the name of their rules, after a mark of their own."""
        content: dict[str, object] = {"rules": self._rules, "words": self._words}
        if self.unused_ids:
            content["unused"] = len(self.unused_ids)
        return WORDS_MAGIC + json.dumps(content).encode("ascii")

    def to_tensor(self) -> Tensor:
        """Return ``to_bytes`` as uint8 ``(bytes,)``, as a checkpoint can hold it."""
        return torch.from_numpy(np.frombuffer(self.to_bytes(), dtype=np.uint8).copy())

    def encode(self, text: str) -> list[int]:
        """Return the ids of the words of ``text``, without ``BOS_ID`` and ``EOS_ID``."""
        return [self._ids.get(word, UNK_ID) for word in self._split(text)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return what ``encode`` gives for each text."""
        return [self.encode(text) for text in texts]

    def spellings(self, text: str) -> list[str]:
        """Return the words of ``text`` as it spells them, one for each id of ``encode``.

        A word that the rules have changed by more than its upper case is returned as changed.
        """
        lower = text.lower()
        if len(lower) != len(text):  # in a few languages; then places are not the same
            lower = text
        words, end = [], 0
        for word in self._split(text):
            start = lower.find(word, end)
            if start >= 0:
                end = start + len(word)
                word = text[start:end]
            words.append(word)
        return words

    def decode(self, ids: Sequence[int]) -> str:
        """Return the words of ``ids``, joined by spaces; special and unused ids have none.

        Only ``UNK_ID`` becomes a mark, that of SentencePiece, so that it is seen.
        """
        return " ".join(filter(None, (self._decoded[int(i)] for i in ids)))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the spelling of each id."""
        return [self._pieces[int(i)] for i in ids]

    def __reduce__(self) -> tuple[type["WordTokenizer"], tuple[tuple[str, ...], str, int]]:
        return type(self), (self._words, self._rules, len(self.unused_ids))


def _to_bytes(data: Tensor) -> bytes:
    return data.cpu().numpy().tobytes()
