"""Corpora tokenised once into memory-mapped arrays: memory does not grow with the corpus."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray

from datamodules.text_files import Pair, ParallelText
from seq2seq.errors import DataError
from seq2seq.sequences import EOS_ID
from seq2seq.tokenizer import SubwordTokenizer, TokenizerType

OnTooLong = Literal["drop", "truncate", "error"]

_log = logging.getLogger(__name__)

# Part of every key: raise it when the files below change their layout.
_LAYOUT = 1
_LINES_AT_ONCE = 4096


@dataclass(frozen=True)
class LengthLimits:
    """What to do with long lines.

    Attributes:
        max_source_length: Largest number of source tokens, the end of the sentence included.
        max_target_length: The same for the target.
        on_too_long: Whether a longer line is left out, cut off, or an error.
    """

    max_source_length: int
    max_target_length: int
    on_too_long: OnTooLong


class MappedArray:
    """Variable-length rows in memory-mapped files; pickled as their path, not as their content.

    Args:
        path: Stem of the two files: ``path.data`` has the rows end to end, ``path.offsets`` where
            each begins, and where the last ends.
    """

    dtype: type[np.generic]

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = _map(path.with_suffix(".data"), self.dtype)
        self._offsets = _map(path.with_suffix(".offsets"), np.int64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of each row, int64 ``(rows,)``."""
        return np.diff(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self._data[self._offsets[row] : self._offsets[row + 1]]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path,)


class TokenArray(MappedArray):
    """Token ids of each line, int32, ending in ``EOS_ID``."""

    dtype = np.int32


class TextArray(MappedArray):
    """UTF-8 bytes of each line, uint8."""

    dtype = np.uint8

    def text(self, row: int) -> str:
        """Return the text of a line."""
        return self[row].tobytes().decode("utf-8")


class TokenisedSide:
    """One language of a tokenised corpus.

    Args:
        folder: Where the corpus is.
        role: ``source`` or ``target``.

    Attributes:
        tokens: Ids of each line.
        text: Text of each line, as it stands in the file.
    """

    def __init__(self, folder: Path, role: str) -> None:
        self.tokens = TokenArray(folder / f"{role}_tokens")
        self.text = TextArray(folder / f"{role}_text")


class TokenisedCorpus:
    """A parallel corpus as ``tokenise`` left it.

    Args:
        folder: Where it is.

    Attributes:
        source: Source side.
        target: Target side; None where only the source was read.
        dropped: How many lines were left out as too long.
        truncated: How many lines were cut off as too long.
    """

    def __init__(self, folder: Path) -> None:
        counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
        self.dropped: int = counts["dropped"]
        self.truncated: int = counts["truncated"]
        self.source = TokenisedSide(folder, "source")
        self.target = TokenisedSide(folder, "target") if counts["has_target"] else None

    def __len__(self) -> int:
        return len(self.source.tokens)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each example's longer side, int64 ``(examples,)``."""
        if self.target is None:
            return self.source.tokens.lengths
        return np.maximum(self.source.tokens.lengths, self.target.tokens.lengths)


def content_key(paths: Iterable[Path], *options: object) -> str:
    """Return a hash of the contents of files and of options, hexadecimal.

    Contents, not names, sizes and times: a file that was copied keeps its cache, and one that was
    edited within a tick of the clock loses it.
    """
    digest = hashlib.blake2b(repr((_LAYOUT, options)).encode(), digest_size=16)
    for path in paths:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()


def train_tokenizer(
    path: Path,
    text: ParallelText,
    roles: tuple[str, ...],
    vocab_size: int,
    model_type: TokenizerType,
    normalization: str,
) -> None:
    """Train a tokenizer and leave it in ``path``, unless that has been done.

    Args:
        path: Where to leave the model.
        text: What to train on.
        roles: Which sides of it: ``source``, ``target`` or both.
        vocab_size: Number of pieces.
        model_type: How words are cut up.
        normalization: SentencePiece's rule.

    Raises:
        DataError: If a file cannot be used, or ``vocab_size`` does not fit it.
    """
    if path.is_file():
        return
    sentences = (getattr(pair, role) for pair in text for role in roles)
    option = "--data.source_vocab_size" if roles == ("source",) else "--data.vocab_size"
    tokenizer = SubwordTokenizer.train(
        sentences, vocab_size, model_type, normalization, vocab_size_option=option
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as partial:
        partial.write(tokenizer.to_bytes())
    Path(partial.name).chmod(0o644)  # made for its owner alone; a cache may be shared
    Path(partial.name).replace(path)


def corpus_folder(
    cache: Path,
    text: ParallelText,
    tokenizers: dict[str, SubwordTokenizer],
    limits: LengthLimits,
) -> Path:
    """Return where the tokenised ``text`` is, or is to be."""
    fingerprints = [tokenizers[role].fingerprint for role in ("source", "target")]
    options = (text.source, text.target, fingerprints, asdict(limits))
    return cache / f"corpus-{content_key(text.paths, *options)}"


def tokenise(
    folder: Path,
    text: ParallelText,
    tokenizers: dict[str, SubwordTokenizer],
    limits: LengthLimits,
) -> None:
    """Tokenise a corpus into ``folder``, unless that has been done.

    Args:
        folder: What ``corpus_folder`` gave. It appears when it is complete, not before.
        text: What to read.
        tokenizers: Of the ``source`` and the ``target``.
        limits: What to do with long lines.

    Raises:
        DataError: If a file cannot be used, a line is too long and that is an error, or nothing
            is left of the corpus.
    """
    if folder.is_dir():
        return
    with _appearing(folder) as partial:
        counts = {"dropped": 0, "truncated": 0, "has_target": text.target is not None}
        with ExitStack() as stack:
            roles = ("source",) if text.target is None else ("source", "target")
            writers = {
                (role, part): stack.enter_context(_row_writer(partial / f"{role}_{part}"))
                for role in roles
                for part in ("tokens", "text")
            }
            kept = 0
            pairs_left = iter(text)
            while pairs := tuple(islice(pairs_left, _LINES_AT_ONCE)):
                for sides in _encode(pairs, tokenizers):
                    if not _apply_limits(sides, limits, text, counts):
                        continue
                    kept += 1
                    for role, side in sides.items():
                        writers[role, "tokens"](np.asarray([*side.ids, EOS_ID], dtype=np.int32))
                        writers[role, "text"](np.frombuffer(side.text.encode(), dtype=np.uint8))
        if not kept:
            raise DataError(
                f"{text.paths[0]}: every line is over the limit. Raise --data.max_source_length "
                "and --data.max_target_length, or set --data.on_too_long=truncate."
            )
        (partial / "counts.json").write_text(json.dumps(counts), encoding="utf-8")
    _report(text, counts, limits)


@dataclass
class _Side:
    line: int
    text: str
    ids: list[int]


def _encode(
    pairs: tuple[Pair, ...], tokenizers: dict[str, SubwordTokenizer]
) -> Iterator[dict[str, _Side]]:
    source = tokenizers["source"].encode_batch([pair.source for pair in pairs])
    targets = [pair.target for pair in pairs if pair.target is not None]
    target = tokenizers["target"].encode_batch(targets) if targets else []
    for row, pair in enumerate(pairs):
        sides = {"source": _Side(pair.line, pair.source, source[row])}
        if pair.target is not None:
            sides["target"] = _Side(pair.line, pair.target, target[row])
        yield sides


def _apply_limits(
    sides: dict[str, _Side], limits: LengthLimits, text: ParallelText, counts: dict[str, Any]
) -> bool:
    """Cut off what is too long, and return whether to keep the example."""
    is_too_long = False
    for role, side in sides.items():
        limit = limits.max_source_length if role == "source" else limits.max_target_length
        count = len(side.ids) + 1  # the end of the sentence
        if count <= limit:
            continue
        is_too_long = True
        if limits.on_too_long == "error":
            path = text.paths[0 if role == "source" else -1]
            raise DataError(
                f"{path}:{side.line}: the {role} has {count} tokens, the limit is {limit}. "
                f"Raise --data.max_{role}_length, or set --data.on_too_long=truncate."
            )
        side.ids = side.ids[: limit - 1]
    if not is_too_long:
        return True
    is_dropped = limits.on_too_long == "drop"
    counts["dropped" if is_dropped else "truncated"] += 1
    return not is_dropped


@rank_zero_only
def _report(text: ParallelText, counts: dict[str, Any], limits: LengthLimits) -> None:
    for action in ("dropped", "truncated"):
        if counts[action]:
            _log.warning(
                "%s: %d line(s) %s, over %d source or %d target tokens "
                "(--data.max_source_length, --data.max_target_length).",
                text.paths[0],
                counts[action],
                action,
                limits.max_source_length,
                limits.max_target_length,
            )


@contextmanager
def _row_writer(path: Path) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Give a function that appends one row to the files of a ``MappedArray``."""
    end = 0
    data_path, offsets_path = path.with_suffix(".data"), path.with_suffix(".offsets")
    with data_path.open("wb") as data, offsets_path.open("wb") as offsets:
        offsets.write(np.int64(0).tobytes())

        def write(row: NDArray[Any]) -> None:
            nonlocal end
            end += len(row)
            data.write(row.tobytes())
            offsets.write(np.int64(end).tobytes())

        yield write


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Give an empty folder that takes the name ``folder`` at the end, if nothing went wrong."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp keeps others out; a shared cache is for others too
        _rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rename(partial: Path, folder: Path) -> None:
    try:
        os.rename(partial, folder)  # noqa: PTH104  # as one step, or not at all
    except OSError:
        # Another process was quicker; the same key means the same content.
        if not folder.is_dir():
            raise


def _map(path: Path, dtype: type[np.generic]) -> NDArray[Any]:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")
