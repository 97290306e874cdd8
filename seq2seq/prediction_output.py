"""What ``seq2seq-predict`` writes: rows of text, JSON or CSV, figures of the attention, a page."""

import csv
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from math import exp
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

from jsonargparse import Namespace
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from seq2seq.batches import Prediction
from seq2seq.errors import ConfigError, DataError
from seq2seq.explanation_page import ExplanationPage
from seq2seq.tasks.base import SequenceTask

Format = Literal["text", "jsonl", "csv"]

_TOP_CLASSES = 5
_NAME_BYTES = 200  # of a figure, with room for a number; file systems take 255
_BLANKS = dict.fromkeys(map(ord, "\t\r\n"), " ")


class Columns(NamedTuple):
    """What rows have beside the source and the text.

    Attributes:
        is_file: Whether inputs are files: ``text`` then puts their paths in front of the output, as
            the order of a folder is not obvious.
        is_ranked: Whether inputs have several predictions; ``csv`` then numbers them.
        has_alignment: Whether ``jsonl`` has the alignment.
        has_labels: Whether outputs are labels, which come with their probability.
        has_seconds: Whether there is a row for each frame, which comes with its time.
    """

    is_file: bool = False
    is_ranked: bool = False
    has_alignment: bool = False
    has_labels: bool = False
    has_seconds: bool = False


class RowFormat(NamedTuple):
    """How predictions become rows.

    Attributes:
        header: First line; None without one.
        write: Returns the line or lines of an input and its predictions, best first.
    """

    header: str | None
    write: Callable[[str, list[Prediction]], str]


def row_format(name: Format, columns: Columns) -> RowFormat:
    """Return the format of this name."""
    if name == "jsonl":
        return RowFormat(None, partial(format_json, columns=columns))
    if name == "csv":
        names = {
            "source": True,
            "seconds": columns.has_seconds,
            "rank": columns.is_ranked,
            "text": True,
            "probability": columns.has_labels,
            "score": True,
            "error": True,
        }
        header = ",".join(column for column, is_there in names.items() if is_there)
        return RowFormat(header, partial(format_csv, columns=columns))
    return RowFormat(None, partial(format_text, columns=columns))


def format_text(source: str, predictions: list[Prediction], *, columns: Columns) -> str:
    """Return one line: the hypotheses, separated by tabs; in front the path and the seconds."""
    cells = [source.translate(_BLANKS)] if columns.is_file else []
    error = reason(source, predictions[0])
    if columns.is_file and error is not None:
        return "\t".join([*cells, f"[error: {error.translate(_BLANKS)}]"])
    if columns.has_seconds:
        cells.append(f"{predictions[0].seconds:.3f}")
    for prediction in predictions:
        cells.append(prediction.text)
        if prediction.probabilities is not None:
            cells.append(f"{probability(prediction):.4f}")
    return "\t".join(cells)


def probability(prediction: Prediction) -> float:
    """Return the probability of an output."""
    return exp(sum(prediction.token_log_probs))


def format_json(source: str, predictions: list[Prediction], *, columns: Columns) -> str:
    """Return one JSON object; further hypotheses are under ``n_best``."""
    records = [_record(prediction, columns.has_alignment) for prediction in predictions]
    record = {"source": source, **records[0]}
    if len(records) > 1:
        record["n_best"] = records
    error = reason(source, predictions[0])
    if error is not None:
        record["error"] = error
    return json.dumps(record, ensure_ascii=False)


def _record(prediction: Prediction, has_alignment: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "text": prediction.text,
        "score": round(prediction.score, 5),
        "tokens": prediction.tokens,
        "token_scores": [round(value, 5) for value in prediction.token_log_probs],
    }
    if prediction.seconds is not None:
        record["seconds"] = round(prediction.seconds, 3)
    if prediction.probabilities is not None:
        record["probability"] = round(probability(prediction), 5)
        record["classes"] = [
            {name: round(share, 5) for name, share in step} for step in top_classes(prediction)
        ]
    if prediction.contributions is not None:
        record["source_tokens"] = prediction.source_tokens
        # One list for each label; small ones need their digits, too.
        record["contributions"] = [
            [float(f"{value:.4g}") for value in step] for step in prediction.contributions.tolist()
        ]
    if has_alignment and prediction.attention is not None:
        record["source_tokens"] = prediction.source_tokens
        # For each target token the source token that it attends to most.
        record["alignment"] = prediction.attention.argmax(dim=-1).tolist()
    return record


def top_classes(prediction: Prediction) -> list[list[tuple[str, float]]]:
    """Return the most probable classes of each step, the best first, with their probabilities."""
    assert prediction.probabilities is not None
    assert prediction.classes is not None
    names = prediction.classes
    best = prediction.probabilities.topk(min(_TOP_CLASSES, len(names)), dim=-1)
    return [
        [(names[number], share) for number, share in zip(numbers, shares, strict=True)]
        for numbers, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def format_csv(source: str, predictions: list[Prediction], *, columns: Columns) -> str:
    """Return a row per hypothesis, with the columns of the header."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    for rank, prediction in enumerate(predictions, start=1):
        error = reason(source, prediction)
        is_there = error is None
        row: list[Any] = [source]
        if columns.has_seconds:
            row.append(f"{prediction.seconds:.3f}" if is_there else "")
        if columns.is_ranked:
            row.append(rank)
        row.append(prediction.text)
        if columns.has_labels:
            is_labelled = prediction.probabilities is not None
            row.append(round(probability(prediction), 5) if is_labelled else "")
        writer.writerow([*row, round(prediction.score, 5) if is_there else "", error or ""])
    return output.getvalue().removesuffix("\n")


def reason(source: str, prediction: Prediction) -> str | None:
    """Return why an input could not be used, without its path: that stands beside it."""
    return prediction.error and prediction.error.removeprefix(f"{Path(source)}: ")


class FigureFolder:
    """Writes what each prediction attended to into a folder, a PNG per input.

    Lines are numbered from ``000001.png``. A file gives its figure its own name, with the folders
    that it lies in below ``root``, joined by ``__``; ``_2``, ``_3``, ... tell apart what would have
    the same name. Where there is nothing to draw, there is no figure.

    Args:
        folder: Where to write; made where it does not exist.
        task: What draws.
        root: Folder that was searched for the inputs; None where they were named one by one.

    Raises:
        ConfigError: If the task's decoder has no attention.
        DataError: If the folder cannot be made.
    """

    def __init__(self, folder: Path, task: SequenceTask, root: Path | None) -> None:
        if task.decoder.attention is None:
            raise ConfigError(
                "--attention_dir: this checkpoint's decoder has no attention. Leave the option out."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: cannot be made: {error.strerror}.") from error
        self.folder = folder
        self.task = task
        self.root = root
        self._taken: set[str] = set()

    def skip(self, items: Sequence[str], first: int) -> None:
        """Leave the figures of inputs to others; their names are taken.

        Args:
            items: The raw inputs.
            first: Number of inputs before them.
        """
        for number, item in enumerate(items, first + 1):
            self._name(item, number)

    def write(self, item: str, number: int, prediction: Prediction) -> None:
        """Draw a prediction.

        Args:
            item: The raw input.
            number: Its place, from 1.
            prediction: What was decoded from it, with its attention.

        Raises:
            ConfigError: If the figure would lie among the inputs.
            DataError: If it cannot be written.
        """
        # Taken also where nothing is drawn: what others are called must not depend on it.
        name = self._name(item, number)
        if prediction.attention is None:
            return
        self._check_place(item)
        batch = self.task.collate([self.task.load_item(item)])
        figure = self.task.figure(batch, prediction)
        if figure is None:
            return
        path = self.folder / name
        with warnings.catch_warnings():
            # A letter that the font lacks is seen as a box.
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
            try:
                # Figures are mostly photographs: more compression takes longer than the drawing.
                figure.savefig(path, pil_kwargs={"compress_level": 1})
            except OSError as error:
                raise DataError(f"{path}: cannot be written: {error.strerror}.") from error
        figure.clear()  # its parts refer to each other, and would wait for the garbage collection

    def _check_place(self, item: str) -> None:
        if self.task.item_kind == "line":
            return
        path = Path(item)
        if path.parent.resolve() == self.folder.resolve():
            raise ConfigError(
                f"--attention_dir {self.folder}: {path} lies there too, and could be overwritten. "
                "Give another folder."
            )
        if self.folder.resolve().is_relative_to(path.resolve()):
            raise ConfigError(
                f"--attention_dir {self.folder}: lies in {path}, whose frames are pictures, too. "
                "Give another folder."
            )

    def _name(self, item: str, number: int) -> str:
        if self.task.item_kind == "line":
            return f"{number:06}.png"
        path = Path(item)
        # A folder of frames that was given as it is has no folder above it.
        if self.root is None or path == self.root:
            below = Path(path.name)
        else:
            below = path.relative_to(self.root)
        whole = "__".join([*below.parts[:-1], below.stem])
        stem = os.fsencode(whole)[-_NAME_BYTES:].decode("utf-8", "ignore")
        name, count = stem, 1
        while name.casefold() in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name.casefold())
        return f"{name}.png"


def check_output(path: str, source: str, option: str) -> None:
    """Refuse to write over the input.

    Raises:
        ConfigError: If ``option`` would do so.
    """
    paths = Path(path), Path(source)
    if source != "-" and all(each.exists() for each in paths) and paths[0].samefile(source):
        raise ConfigError(f"{path}: {option} would overwrite --input. Give it another name.")


def open_output(path: str, source: str, stack: ExitStack, option: str = "--output") -> TextIO:
    """Return where to write.

    Args:
        path: A file, or ``-`` for standard output.
        source: What ``--input`` is.
        stack: What closes the file in the end.
        option: What ``path`` is the value of.

    Raises:
        ConfigError: If that is the input.
        DataError: If it cannot be written.
    """
    if path == "-":
        # Names of files need not be UTF-8.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]  # a real file here
        return sys.stdout
    check_output(path, source, option)
    try:
        return stack.enter_context(
            Path(path).open("w", encoding="utf-8", errors="backslashreplace")
        )
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}.") from error


def open_page(options: Namespace, stack: ExitStack) -> ExplanationPage | None:
    """Return the page of explanations that the options ask for; None where they do not.

    Raises:
        ConfigError: If it is the input.
        DataError: If it cannot be written.
    """
    if options.explain_page is None:
        return None
    output = open_output(options.explain_page, options.input, stack, "--explain_page")
    title = {"gradient": "Gradient times input", "attention": "Attention"}[options.explain]
    return stack.enter_context(ExplanationPage(output, f"{title} of each word"))


def progress_bar(is_hidden: bool) -> Progress:
    """Return a bar on standard error, unless that is a pipe or a log.

    Args:
        is_hidden: True where somebody types, or reads the answers on the same terminal.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        TextColumn("{task.completed:.0f}"),
        TimeElapsedColumn(),
        console=console,
        disable=is_hidden or not console.is_terminal,
    )
