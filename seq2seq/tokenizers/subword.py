"""Subword tokenisation with SentencePiece: train, encode, decode, to and from bytes."""

import hashlib
import io
import random
import re
from array import array
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import sentencepiece
import torch
from torch import Tensor

from seq2seq.errors import DataError
from seq2seq.sequences import BOS_ID, EOS_ID, PAD_ID, UNK_ID

TokenizerType = Literal["unigram", "bpe", "char", "word"]
Normalization = Literal["identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"]

# SentencePiece would otherwise leave out, without a word, every line of more than 4,192 bytes.
_MAX_LINE_BYTES = 1 << 24
# Its trainer holds all it reads in memory; from this many lines on, it takes a random sample.
_MAX_TRAINING_LINES = 5_000_000
# The estimates of the threads are summed in their order, so the number must not follow the machine.
_TRAINING_THREADS = 4
_ONLY_ERRORS = 2
# How SentencePiece writes a space inside a piece.
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
# Number of segmentations of a word that a sample is drawn from, the l of Kudo 2018.
_SAMPLED_FROM = 64
# At some 2 kB each, they take 65 MB of a process at most.
_REMEMBERED_WORDS = 1 << 15


class SubwordTokenizer:
    """A trained SentencePiece model.

    Text cannot inject special ids: ``"</s>"`` in a sentence is spelled like any other word.
    Instances can be pickled, so that loader workers may be spawned.

    Args:
        model: The serialised SentencePiece model.
        origin: Where the model comes from, for error messages.

    Attributes:
        vocab_size: Number of pieces, special ones included.
        fingerprint: A hash of the model, hexadecimal; equal only for equal models.
        can_sample: Whether a text has several segmentations, as with a unigram model.

    Raises:
        DataError: If ``model`` is not a SentencePiece model, or has other special ids than
            ``seq2seq.sequences``.
    """

    def __init__(self, model: bytes, origin: str = "the given tokenizer") -> None:
        self._model = model
        self._processor = _load_processor(model, origin)
        self.vocab_size: int = self._processor.vocab_size()
        self.unused_ids = range(0)
        self.fingerprint = hashlib.blake2b(model, digest_size=16).hexdigest()
        self.can_sample = _has_alternatives(self._processor)
        # Words come again and again, and finding all their segmentations is what takes the time.
        self._segmentations = lru_cache(_REMEMBERED_WORDS)(self._segment)

    @classmethod
    def train(
        cls,
        sentences: Iterable[str],
        vocab_size: int,
        model_type: TokenizerType = "unigram",
        normalization: Normalization = "nmt_nfkc",
        character_coverage: float = 1.0,
        seed: int = 1,
        vocab_size_option: str = "--data.vocab_size",
        origin: str = "the training text",
    ) -> "SubwordTokenizer":
        """Train a model; the same arguments give the same model.

        Args:
            sentences: Training text, one line each.
            vocab_size: Number of pieces, special ones included; never fewer are made.
            model_type: How words are cut up. ``char`` and ``word`` keep the most frequent ones.
            normalization: SentencePiece's rule; with ``_cf`` at the end, case is folded.
            character_coverage: Share of the characters of the text that must have a piece.
            seed: Of the sample of lines that is read when there are millions.
            vocab_size_option: Where the user sets ``vocab_size``, for error messages.
            origin: Where the sentences come from, for error messages.

        Raises:
            DataError: If ``vocab_size`` does not fit the text, or the text is empty. What
                ``sentences`` raises comes through.
        """
        model = io.BytesIO()
        errors: list[BaseException] = []
        sentencepiece.set_random_generator_seed(seed)
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_training_lines(sentences, errors),
                model_writer=model,
                vocab_size=vocab_size,
                model_type=model_type,
                normalization_rule_name=normalization,
                character_coverage=character_coverage,
                pad_id=PAD_ID,
                unk_id=UNK_ID,
                bos_id=BOS_ID,
                eos_id=EOS_ID,
                max_sentence_length=_MAX_LINE_BYTES,
                input_sentence_size=_MAX_TRAINING_LINES,
                num_threads=_TRAINING_THREADS,
                minloglevel=_ONLY_ERRORS,
            )
        except (RuntimeError, OSError) as error:
            if errors:
                raise errors[0] from None
            raise _training_error(str(error), vocab_size, vocab_size_option, origin) from error
        tokenizer = cls(model.getvalue())
        if tokenizer.vocab_size != vocab_size:
            raise _vocabulary_too_large(vocab_size, tokenizer.vocab_size, vocab_size_option, origin)
        return tokenizer

    @classmethod
    def from_file(cls, path: str | Path) -> "SubwordTokenizer":
        """Load a SentencePiece ``.model`` file.

        Raises:
            DataError: If there is no such file, or it is not a model that can be used.
        """
        try:
            return cls(Path(path).read_bytes(), str(path))
        except OSError as error:
            raise DataError(
                f"{path}: the tokenizer cannot be read ({error.strerror}). "
                "Give the path of a SentencePiece .model file."
            ) from error

    @classmethod
    def from_bytes(cls, model: bytes) -> "SubwordTokenizer":
        """Load what ``to_bytes`` gave."""
        return cls(model)

    @classmethod
    def from_tensor(cls, model: Tensor) -> "SubwordTokenizer":
        """Load what ``to_tensor`` gave, uint8 ``(bytes,)``."""
        return cls(model.cpu().numpy().tobytes())

    def to_bytes(self) -> bytes:
        """Return the serialised model."""
        return self._model

    def to_tensor(self) -> Tensor:
        """Return the serialised model as uint8 ``(bytes,)``, as a checkpoint can hold it."""
        return torch.from_numpy(np.frombuffer(self._model, dtype=np.uint8).copy())

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without ``BOS_ID`` and ``EOS_ID``."""
        ids: list[int] = self._processor.encode(_replace_reserved(text))
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return what ``encode`` gives for each text."""
        ids: list[list[int]] = self._processor.encode([_replace_reserved(text) for text in texts])
        return ids

    def sample(self, text: str, alpha: float, seed: int) -> list[int]:
        """Return the ids of a random segmentation of ``text``, without BOS and EOS.

        Drawn word by word from the likeliest segmentations of a unigram model, whose tokens do
        not cross a space; other models have but one segmentation. The result depends on the
        arguments alone. (SentencePiece's own sampling does not: its generator gives other draws in
        another process, whatever seed it is given.)

        Args:
            text: What to encode.
            alpha: How strongly likely segmentations are preferred; 0.2 to 0.5 is usual.
            seed: Of the draw, not negative.

        Source: Kudo 2018, arXiv:1804.10959, section 3.
        """
        if not self.can_sample:
            return self.encode(text)
        draw = random.Random(seed).random  # noqa: S311  # not for secrets
        ids: list[int] = []
        text = _replace_reserved(text)
        for word in text.split(" ") if self._words_are_apart else [text]:
            ids += self._segmentations(word, alpha).at(draw())
        return ids

    def _segment(self, word: str, alpha: float) -> "_Segmentations":
        choices = self._processor.nbest_encode(word, nbest_size=_SAMPLED_FROM) or [[]]
        scores = np.array([sum(map(self._piece_scores.__getitem__, ids)) for ids in choices])
        weights = np.exp(alpha * (scores - scores.max()))
        # The last end is left out: rounding may put it below 1.
        ends = weights.cumsum()[:-1] / weights.sum()
        starts = accumulate(map(len, choices), initial=0)
        return _Segmentations(
            array("i", chain.from_iterable(choices)), array("i", starts), array("d", ends)
        )

    @cached_property
    def _piece_scores(self) -> list[float]:
        return [self._processor.get_score(piece) for piece in range(self.vocab_size)]

    @cached_property
    def _words_are_apart(self) -> bool:
        """Whether a text is encoded like its words one by one."""
        if self.encode("a b") != self.encode("a") + self.encode("b"):
            return False
        return not any(
            _SPACE in piece.strip(_SPACE) for piece in self.pieces(range(self.vocab_size))
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; ``PAD_ID``, ``BOS_ID`` and ``EOS_ID`` have none.

        ``UNK_ID`` becomes SentencePiece's mark for an unknown piece, so that it is seen.
        """
        text: str = self._processor.decode([int(i) for i in ids])
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the spelling of each id, with SentencePiece's mark at the start of a word."""
        return [self._processor.id_to_piece(int(i)) for i in ids]

    def __reduce__(self) -> tuple[type["SubwordTokenizer"], tuple[bytes]]:
        return type(self), (self._model,)


class _Segmentations(NamedTuple):
    """The likeliest segmentations of a word, packed: there are thousands of these.

    Attributes:
        ids: Those of each segmentation, end to end.
        starts: Where each begins in ``ids``, and where the last ends.
        ends: Upper end of each one's share of the numbers from 0 to 1, but for the last.
    """

    ids: "array[int]"
    starts: "array[int]"
    ends: "array[float]"

    def at(self, number: float) -> "array[int]":
        """Return the ids of the segmentation that ``number``, from 0 to 1, falls to."""
        choice = bisect(self.ends, number)
        return self.ids[self.starts[choice] : self.starts[choice + 1]]


def _load_processor(model: bytes, origin: str) -> Any:
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.load_from_serialized_proto(model)
    except RuntimeError as error:
        raise DataError(
            f"{origin} is not a SentencePiece model ({error}). "
            "Give a .model file, or none to have one trained."
        ) from error
    expected = {"pad": PAD_ID, "unk": UNK_ID, "bos": BOS_ID, "eos": EOS_ID}
    found = {name: getattr(processor, f"{name}_id")() for name in expected}
    if found != expected:
        raise DataError(
            f"{origin} has the special ids {_spell(found)}, expected are {_spell(expected)}. "
            "Train it again with --pad_id=0 --unk_id=1 --bos_id=2 --eos_id=3."
        )
    return processor


def _has_alternatives(processor: Any) -> bool:
    try:
        processor.nbest_encode("a", nbest_size=2)
    except RuntimeError:  # all but unigram models
        return False
    return True


def _spell(ids: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in ids.items())


def _replace_reserved(text: str) -> str:
    # SentencePiece keeps tab and NUL for itself: without this they would cost a line its training.
    return text.replace("\t", " ").replace("\0", " ")


def _training_lines(sentences: Iterable[str], errors: list[BaseException]) -> Iterator[str]:
    try:
        yield from map(_replace_reserved, sentences)
    except BaseException as error:
        # SentencePiece makes a RuntimeError of it: keep the one that says what is wrong.
        errors.append(error)
        raise


def _vocabulary_too_large(vocab_size: int, largest: int, option: str, origin: str) -> DataError:
    return DataError(
        f"A vocabulary of {vocab_size} pieces is too large for {origin}. "
        f"Set {option} to {largest} or less."
    )


def _training_error(message: str, vocab_size: int, option: str, origin: str) -> DataError:
    if match := re.search(r"Vocabulary size too high.*<= (\d+)", message):
        return _vocabulary_too_large(vocab_size, int(match[1]), option, origin)
    if match := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return DataError(
            f"A vocabulary of {vocab_size} pieces is smaller than the number of characters in "
            f"{origin}. Set {option} to {match[1]} or more."
        )
    if "sentences_.empty()" in message:
        return DataError(f"A tokenizer needs text, but every line is empty in {origin}.")
    return DataError(f"No tokenizer can be trained on {origin}: {message.strip()}")
