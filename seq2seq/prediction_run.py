"""What one process of ``seq2seq-predict`` does: from raw inputs to rows, figures and a page."""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import torch
from jsonargparse import Namespace

from seq2seq.errors import ConfigError
from seq2seq.explanation import require_explainable
from seq2seq.explanation_page import ExplanationPage
from seq2seq.prediction_input import open_items
from seq2seq.prediction_output import Columns, FigureFolder, row_format
from seq2seq.prediction_parts import Finished, Part, PartFolder, cut
from seq2seq.predictor import Predictor, find_device
from seq2seq.search import SearchOptions
from seq2seq.tasks.base import SequenceTask
from seq2seq.tasks.labelling import LabelTask
from seq2seq.tasks.video import VideoClassifier


class Row(NamedTuple):
    """A row of the output.

    Attributes:
        text: Its line or lines, without the end of the last one.
        has_error: Whether it says why an input could not be used.
    """

    text: str
    has_error: bool


class PredictionRun:
    """A checkpoint's task with the options of ``seq2seq-predict``.

    Args:
        task: The task.
        options: The options.

    Raises:
        ConfigError: If options are out of range, or are not for this task.
    """

    def __init__(self, task: SequenceTask, options: Namespace) -> None:
        self.options = options
        self.kind = task.item_kind
        self.search = search_options(options)
        self.predictor = Predictor(task, options.device, options.precision)
        self._check()
        columns = Columns(
            is_file=self.kind != "line",
            is_ranked=options.n_best > 1,
            has_alignment=options.alignment,
            has_labels=isinstance(task, LabelTask),
            has_seconds=options.per_frame,
        )
        self.format = row_format(options.format, columns)
        # Videos that are followed frame by frame may be long, and gain nothing by company.
        size = self.predictor.chunk_size(options.batch_size)
        self.chunk_size = 1 if options.per_frame else size

    def _check(self) -> None:
        task, options, kind = self.predictor.task, self.options, self.kind
        if options.explain is not None:
            require_explainable(task, options.explain)
        if options.alignment and kind != "line":
            raise ConfigError(
                f"--alignment is between words, and this checkpoint reads {kind}s. Set "
                "--attention_dir to see what it attends to."
            )
        if options.per_frame and kind != "video":
            raise ConfigError(
                f"--per_frame is for videos, and this checkpoint reads {kind}s. Leave it out."
            )
        if options.per_frame and (options.n_best > 1 or options.attention_dir is not None):
            raise ConfigError(
                "--per_frame gives the most probable labels after each frame, and draws nothing. "
                "Leave out --n_best and --attention_dir."
            )
        if options.clips != 1 and kind != "video":
            raise ConfigError(
                f"--clips is for videos, and this checkpoint reads {kind}s. Leave it out."
            )
        if options.clips != 1 and options.per_frame:
            raise ConfigError("--per_frame looks at every frame, once. Leave out --clips.")
        if isinstance(task, VideoClassifier):
            task.take_clips(options.clips)
        if options.per_frame and isinstance(task, VideoClassifier):
            task.stream()  # whatever needs whole videos is refused before there is any output

    def open_figures(self) -> FigureFolder | None:
        """Return where figures of the attention go; None where none are wanted.

        Raises:
            ConfigError: If the task's decoder has no attention.
            DataError: If the folder cannot be made.
        """
        if self.options.attention_dir is None:
            return None
        source = Path(self.options.input)
        return FigureFolder(
            Path(self.options.attention_dir),
            self.predictor.task,
            source if source.is_dir() else None,
        )

    def rows(
        self,
        items: Sequence[str],
        first: int,
        figures: FigureFolder | None,
        page: ExplanationPage | None,
    ) -> Iterator[Row]:
        """Yield the rows of inputs that follow each other, and draw and explain them.

        Args:
            items: The raw inputs.
            first: Number of inputs before them.
            figures: Where to draw, if anywhere.
            page: Where to explain, if anywhere.

        Raises:
            DataError: If a figure cannot be written.
        """
        options = self.options
        if options.per_frame:
            for item in items:
                for prediction in self.predictor.follow_frames(item):
                    row = self.format.write(item, [prediction])
                    yield Row(row, prediction.error is not None)
            return
        found = self.predictor.predict_chunk(
            items, self.search, options.batch_size, first, options.explain
        )
        for number, (item, predictions) in enumerate(zip(items, found, strict=True), first + 1):
            if figures is not None:
                figures.write(item, number, predictions[0])
            if page is not None:
                page.write(number, predictions[0])
            yield Row(self.format.write(item, predictions), predictions[0].error is not None)


def search_options(options: Namespace) -> SearchOptions:
    """Return how to decode.

    Raises:
        ConfigError: If an option is out of range.
    """
    names = {field.name for field in fields(SearchOptions)}
    return SearchOptions(
        **{name: value for name, value in vars(options).items() if name in names},
        return_attention=options.alignment or options.attention_dir is not None,
    )


def take_share(options: Namespace) -> None:
    """Take this process's share of the machine, one of ``--devices``: a GPU, or some threads."""
    torch.set_num_threads(max(1, torch.get_num_threads() // options.devices))
    if find_device(options.device) == "cuda":
        torch.cuda.set_device(options.process)


def write_parts(run: PredictionRun) -> None:
    """Write those parts of ``--output`` that are this process's and not finished.

    Raises:
        ConfigError: If a figure would lie among the inputs.
        DataError: If the input cannot be read or is not that of the finished parts, or a part or
            a figure cannot be written.
    """
    options = run.options
    folder = PartFolder(options.output)
    starter = os.getppid()
    with ExitStack() as stack:
        items = open_items(options.input, run.kind, stack)
        figures = run.open_figures()
        for part in cut(items, run.chunk_size, folder.processes):
            is_own = part.number % options.devices == options.process
            if is_own and not folder.has(part, run.kind):
                if os.getppid() != starter:
                    return  # it was killed, and nobody waits for the other parts
                folder.write(part.number, _finish(run, part, figures))
            elif figures is not None:
                figures.skip(part.items, part.first)


def _finish(run: PredictionRun, part: Part, figures: FigureFolder | None) -> Finished:
    page = None
    sections = io.StringIO()
    if run.options.explain_page is not None:
        page = ExplanationPage(io.StringIO(), "")
        page.output = sections  # without what stands above and below them all
    digest = part.digest(run.kind)  # before the files are read, which may change
    rows = list(run.rows(part.items, part.first, figures, page))
    return Finished(
        digest=digest,
        is_last=part.is_last,
        inputs=len(part.items),
        unusable=sum(row.has_error for row in rows),
        header=run.format.header,
        rows="".join(f"{row.text}\n" for row in rows),
        page=sections.getvalue(),
    )
