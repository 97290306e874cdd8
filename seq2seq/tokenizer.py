"""Subword tokenisation with SentencePiece: train, encode, decode, to and from bytes."""

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import sentencepiece
import torch
from torch import Tensor

from seq2seq.errors import DataError
from seq2seq.sequences import BOS_ID, EOS_ID, PAD_ID, UNK_ID

TokenizerType = Literal["unigram", "bpe", "char", "word"]

# SentencePiece would otherwise leave out, without a word, every line of more than 4,192 bytes.
_MAX_LINE_BYTES = 1 << 24
# Its trainer holds all it reads in memory; from this many lines on, it takes a random sample.
_MAX_TRAINING_LINES = 5_000_000
# The estimates of the threads are summed in their order, so the number must not follow the machine.
_TRAINING_THREADS = 4
_ONLY_ERRORS = 2
# Number of segmentations that a sample is drawn from, the l of Kudo 2018.
_SAMPLED_FROM = 64


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

    Raises:
        DataError: If ``model`` is not a SentencePiece model, or has other special ids than
            ``seq2seq.sequences``.
    """

    def __init__(self, model: bytes, origin: str = "the given tokenizer") -> None:
        self._model = model
        self._processor = _load_processor(model, origin)
        self.vocab_size: int = self._processor.vocab_size()
        self.fingerprint = hashlib.blake2b(model, digest_size=16).hexdigest()

    @classmethod
    def train(
        cls,
        sentences: Iterable[str],
        vocab_size: int,
        model_type: TokenizerType = "unigram",
        normalization: str = "nmt_nfkc",
        character_coverage: float = 1.0,
        seed: int = 1,
        vocab_size_option: str = "--data.vocab_size",
    ) -> "SubwordTokenizer":
        """Train a model; the same arguments give the same model.

        Args:
            sentences: Training text, one line each.
            vocab_size: Number of pieces, special ones included; never fewer are made.
            model_type: How words are cut up. ``char`` and ``word`` keep the most frequent ones.
            normalization: SentencePiece's rule: ``identity``, ``nfkc``, ``nmt_nfkc``, and with
                ``_cf`` at the end, case folding.
            character_coverage: Share of the characters of the text that must have a piece.
            seed: Of the sample of lines that is read when there are millions.
            vocab_size_option: Where the user sets ``vocab_size``, for error messages.

        Raises:
            DataError: If ``vocab_size`` does not fit the text, or the text is empty.
        """
        model = io.BytesIO()
        sentencepiece.set_random_generator_seed(seed)
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_without_reserved_characters(sentences),
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
            raise _training_error(str(error), vocab_size, vocab_size_option) from error
        tokenizer = cls(model.getvalue())
        if tokenizer.vocab_size != vocab_size:
            raise _vocabulary_too_large(vocab_size, tokenizer.vocab_size, vocab_size_option)
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

        Drawn from the likeliest segmentations of a unigram model; other models have but one.
        The result depends on the arguments alone. (SentencePiece's own sampling does not: its
        generator gives other draws in another process, whatever seed it is given.)

        Args:
            text: What to encode.
            alpha: How strongly likely segmentations are preferred; 0.1 to 0.5 is usual.
            seed: Of the draw, not negative.

        Source: Kudo 2018, arXiv:1804.10959, section 3.
        """
        choices = self._processor.nbest_encode(_replace_reserved(text), nbest_size=_SAMPLED_FROM)
        if len(choices) < 2:
            return self.encode(text)
        scores = np.array([sum(map(self._processor.get_score, ids)) for ids in choices])
        weights = np.exp(alpha * (scores - scores.max()))
        chosen = np.random.default_rng(seed).choice(len(choices), p=weights / weights.sum())
        ids: list[int] = choices[chosen]
        return ids

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


def _spell(ids: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in ids.items())


def _replace_reserved(text: str) -> str:
    # SentencePiece keeps tab and NUL for itself: without this they would cost a line its training.
    return text.replace("\t", " ").replace("\0", " ")


def _without_reserved_characters(sentences: Iterable[str]) -> Iterator[str]:
    return map(_replace_reserved, sentences)


def _vocabulary_too_large(vocab_size: int, largest: int, option: str) -> DataError:
    return DataError(
        f"The training text is too small for a vocabulary of {vocab_size} pieces. "
        f"Set {option} to {largest} or less."
    )


def _training_error(message: str, vocab_size: int, option: str) -> DataError:
    if match := re.search(r"Vocabulary size too high.*<= (\d+)", message):
        return _vocabulary_too_large(vocab_size, int(match[1]), option)
    if match := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return DataError(
            f"A vocabulary of {vocab_size} pieces is smaller than the number of characters in "
            f"the training text. Set {option} to {match[1]} or more."
        )
    if "sentences_.empty()" in message:
        return DataError("There is no text to train a tokenizer on: every line is empty.")
    return DataError(f"The tokenizer cannot be trained: {message.strip()}")
