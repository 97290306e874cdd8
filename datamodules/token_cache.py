"""Parallel corpora, tokenised once."""

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_only

from datamodules.cache import content_key
from datamodules.text_files import Pair, ParallelText
from datamodules.token_corpus import TokenisedCorpus, row_writer
from seq2seq.appearing import appearing
from seq2seq.errors import DataError
from seq2seq.sequences import EOS_ID
from seq2seq.tokenizers import SubwordTokenizer

OnTooLong = Literal["drop", "truncate", "error"]

_log = logging.getLogger(__name__)

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

    Every time, a warning says how many lines were too long.

    Args:
        folder: What ``corpus_folder`` gave. It appears when it is complete, not before.
        text: What to read.
        tokenizers: Of the ``source`` and the ``target``.
        limits: What to do with long lines.

    Raises:
        DataError: If a file cannot be used, a line is too long and that is an error, or nothing
            is left of the corpus.
    """
    if not folder.is_dir():
        with appearing(folder) as partial:
            partial.mkdir()
            _write(partial, text, tokenizers, limits)
    _report(text, TokenisedCorpus(folder), limits)


def _write(
    folder: Path,
    text: ParallelText,
    tokenizers: dict[str, SubwordTokenizer],
    limits: LengthLimits,
) -> None:
    counts = {"kept": 0, "dropped": 0, "truncated": 0, "has_target": text.target is not None}
    roles = ("source",) if text.target is None else ("source", "target")
    with ExitStack() as stack:
        writers = {
            (role, part): stack.enter_context(row_writer(folder / f"{role}_{part}"))
            for role in roles
            for part in ("tokens", "text")
        }
        pairs_left = iter(text)
        while pairs := tuple(islice(pairs_left, _LINES_AT_ONCE)):
            for sides in _encode(pairs, tokenizers):
                if not _apply_limits(sides, limits, text, counts):
                    continue
                counts["kept"] += 1
                for role, side in sides.items():
                    writers[role, "tokens"](np.asarray([*side.ids, EOS_ID], dtype=np.int32))
                    writers[role, "text"](np.frombuffer(side.text.encode(), dtype=np.uint8))
    if not counts["kept"]:
        raise DataError(
            f"{text.paths[0]}: every line is over the limit. Raise --data.max_source_length "
            "and --data.max_target_length, or set --data.on_too_long=truncate."
        )
    (folder / "counts.json").write_text(json.dumps(counts), encoding="utf-8")


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
    sides: dict[str, _Side], limits: LengthLimits, text: ParallelText, counts: dict[str, int]
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
    if limits.on_too_long == "drop":
        counts["dropped"] += 1
        return False
    counts["truncated"] += 1
    return True


@rank_zero_only
def _report(text: ParallelText, corpus: TokenisedCorpus, limits: LengthLimits) -> None:
    for action, count in (("dropped", corpus.dropped), ("truncated", corpus.truncated)):
        if count:
            _log.warning(
                "%s: %d of %d lines %s, over %d source or %d target tokens "
                "(--data.max_source_length, --data.max_target_length).",
                text.paths[0],
                count,
                len(corpus) + corpus.dropped,
                action,
                limits.max_source_length,
                limits.max_target_length,
            )
