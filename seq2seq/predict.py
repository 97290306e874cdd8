"""``seq2seq-predict``: decode with a checkpoint, which carries all that it needs."""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TextIO

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from seq2seq.errors import CheckpointError, ConfigError, DataError
from seq2seq.explanation import ExplanationKind, require_explainable
from seq2seq.explanation_page import ExplanationPage
from seq2seq.forecast import (
    ForecastOptions,
    add_forecast_arguments,
    check_options,
    forecast_file,
    plot_forecast,
    write_forecast,
)
from seq2seq.prediction_input import open_items, ready_chunks
from seq2seq.prediction_output import Columns, FigureFolder, Format, row_format
from seq2seq.predictor import (
    Device,
    Precision,
    Predictor,
    check_batch_size,
    find_device,
    load_task,
)
from seq2seq.search import SearchError, SearchOptions
from seq2seq.tasks.base import SequenceTask
from seq2seq.tasks.forecasting import Forecaster
from seq2seq.tasks.labelling import LabelTask
from seq2seq.tasks.video import VideoClassifier


def build_parser() -> ArgumentParser:
    """Return the parser of ``seq2seq-predict``."""
    parser = ArgumentParser(
        prog="seq2seq-predict",
        description=(
            "Decode with a checkpoint: one output line per input, in order. An input is a line of "
            "text or a file, such as a picture, as the checkpoint's task has it. Where some could "
            "not be used, the others are decoded all the same, and the exit status is 1."
        ),
    )
    parser.add_argument("--ckpt_path", type=str, required=True, help="Checkpoint to use.")
    parser.add_argument(
        "--input",
        type=str,
        default="-",
        help=(
            "File to read; - for standard input. For pictures and videos: one of them, a folder "
            "(with those below it, sorted), or a text file or standard input with a path on each "
            "line. Paths in a file are relative to its folder, or to the working directory if they "
            "are there."
        ),
    )
    parser.add_argument(
        "--output", type=str, default="-", help="File to write; - for standard output."
    )
    parser.add_argument(
        "--format",
        type=Format,
        default="text",
        help=(
            "text: the best output, or n_best of them separated by tabs, for files after the path "
            "and a tab, labels before their probability; jsonl: with tokens, scores and classes; "
            "csv: source, text, score and error, with n_best a row and a rank for each."
        ),
    )
    parser.add_argument(
        "--alignment",
        action="store_true",
        help="With jsonl, for text: for each target token the source token it attends to most.",
    )
    parser.add_argument(
        "--attention_dir",
        type=str | None,
        default=None,
        help=(
            "Folder for a PNG per input that shows what each token attended to: 000001.png, ... by "
            "line; for pictures their own names, with the folders between joined by __."
        ),
    )
    parser.add_argument(
        "--per_frame",
        action="store_true",
        help=(
            "For videos: a row after each frame, with its time in seconds and what it shows so "
            "far. Reads frame after frame, at the frame rate of training where that is steady; a "
            "video may be longer than memory."
        ),
    )
    parser.add_argument(
        "--explain",
        type=ExplanationKind | None,
        default=None,
        help=(
            "With jsonl or explain_page, for classifiers of text: how much each word speaks for "
            "the label (a list for each of several labels). gradient: the gradient of the label's "
            "log-probability by the embedded word, times that; attention: the word's share of it."
        ),
    )
    parser.add_argument(
        "--explain_page",
        type=str | None,
        default=None,
        help="Page of HTML to write, with each word shaded by how much it speaks for the label.",
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        default=64,
        help="Inputs decoded together; with precision 32 it changes no output.",
    )
    parser.add_argument(
        "--device",
        type=Device,
        default="auto",
        help="auto takes a GPU if there is one.",
    )
    parser.add_argument(
        "--precision",
        type=Precision,
        default="32",
        help="bf16 is quicker where the hardware has it, and changes scores a little.",
    )
    add_forecast_arguments(parser)
    parser.add_class_arguments(SearchOptions, skip={"return_attention"})
    return parser


def run(arguments: Sequence[str] | None = None) -> None:
    """Carry out ``seq2seq-predict``.

    Args:
        arguments: As on the command line; ``sys.argv`` when None.

    Raises:
        ConfigError: If options are out of range or do not fit together.
        DataError: If the input cannot be read, or the output not be written; in the end, if some
            inputs could not be used.
        CheckpointError: If the checkpoint cannot be used.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    check_batch_size(options.batch_size)
    if options.alignment and options.format != "jsonl":
        raise ConfigError(f"--alignment has no place in {options.format}. Set --format jsonl.")
    _check_explanation(options)
    names = {field.name for field in fields(SearchOptions)}
    search_options = SearchOptions(
        **{name: value for name, value in vars(options).items() if name in names},
        return_attention=options.alignment or options.attention_dir is not None,
    )
    task = load_task(options.ckpt_path)
    check_options(
        task, [name for name in vars(options) if options[name] != parser.get_default(name)]
    )
    if isinstance(task, Forecaster):
        _forecast(task.to(find_device(options.device)).eval(), options)
        return
    assert isinstance(task, SequenceTask)
    predictor = Predictor(task, options.device, options.precision)
    kind = predictor.task.item_kind
    if options.explain is not None:
        require_explainable(predictor.task, options.explain)
    if options.alignment and kind != "line":
        raise ConfigError(
            f"--alignment is between words, and this checkpoint reads {kind}s. Set --attention_dir "
            "to see what it attends to."
        )
    if options.per_frame and kind != "video":
        raise ConfigError(
            f"--per_frame is for videos, and this checkpoint reads {kind}s. Leave it out."
        )
    if options.per_frame and (options.n_best > 1 or options.attention_dir is not None):
        raise ConfigError(
            "--per_frame gives the most probable labels after each frame, and draws nothing. Leave "
            "out --n_best and --attention_dir."
        )
    if options.per_frame and isinstance(predictor.task, VideoClassifier):
        predictor.task.stream()  # whatever needs whole videos is refused before there is any output
    columns = Columns(
        is_file=kind != "line",
        is_ranked=options.n_best > 1,
        has_alignment=options.alignment,
        has_labels=isinstance(predictor.task, LabelTask),
        has_seconds=options.per_frame,
    )
    rows = row_format(options.format, columns)
    count = unusable = 0
    with ExitStack() as stack:
        items = open_items(options.input, kind, stack)
        figures = _open_figures(options.attention_dir, options.input, predictor.task)
        output = _open_output(options.output, options.input, stack)
        page = _open_page(options, stack)
        is_typed = options.input == "-" and sys.stdin.isatty()
        progress = stack.enter_context(_progress_bar(is_hidden=is_typed or output.isatty()))
        done = progress.add_task("decoded", total=None)
        if rows.header is not None:
            print(rows.header, file=output)
        if options.per_frame:
            for item in items:
                count += 1
                for prediction in predictor.follow_frames(item):
                    print(rows.write(item, [prediction]), file=output, flush=True)
                    unusable += prediction.error is not None
                progress.advance(done)
            items = iter(())
        for chunk in ready_chunks(items, predictor.chunk_size(options.batch_size)):
            found = predictor.predict_chunk(
                chunk, search_options, options.batch_size, count, options.explain
            )
            for number, (item, predictions) in enumerate(zip(chunk, found, strict=True), count + 1):
                if figures is not None:
                    figures.write(item, number, predictions[0])
                if page is not None:
                    page.write(number, predictions[0])
                print(rows.write(item, predictions), file=output)
                unusable += predictions[0].error is not None
            output.flush()
            count += len(chunk)
            progress.advance(done, len(chunk))
    if unusable:
        raise DataError(
            f"{unusable} of {count} inputs could not be used; see the rows marked with an error."
        )


def _forecast(task: Forecaster, options: Namespace) -> None:
    source, plot = options.input, options.plot
    if source == "-":
        raise ConfigError("--input -: a series is read from a file, whose ending says how.")
    if plot is not None and Path(plot).resolve() in {
        Path(path).resolve() for path in (source, options.output)
    }:
        raise ConfigError(f"--plot {plot}: is --input or --output, too. Give it another name.")
    names = ForecastOptions._fields
    found = forecast_file(task, source, ForecastOptions(**{name: options[name] for name in names}))
    with ExitStack() as stack:
        write_forecast(found, _open_output(options.output, source, stack))
    if plot is not None:
        plot_forecast(found, plot, f"{Path(source).name}: {options.horizon} steps on")


def _open_figures(folder: str | None, source: str, task: SequenceTask) -> FigureFolder | None:
    if folder is None:
        return None
    return FigureFolder(Path(folder), task, Path(source) if Path(source).is_dir() else None)


def _check_explanation(options: Namespace) -> None:
    if options.explain_page is not None and options.explain is None:
        raise ConfigError("--explain_page shows contributions. Set --explain gradient.")
    if options.explain_page is not None and options.explain_page == options.output:
        raise ConfigError("--explain_page would overwrite --output. Give it another name.")
    if options.explain is None:
        return
    if options.format != "jsonl" and options.explain_page is None:
        raise ConfigError(
            f"--explain has no place in {options.format}. Set --format jsonl or --explain_page."
        )
    if options.n_best > 1:
        raise ConfigError("--explain is about the most probable labels. Leave out --n_best.")


def _open_page(options: Namespace, stack: ExitStack) -> ExplanationPage | None:
    if options.explain_page is None:
        return None
    output = _open_output(options.explain_page, options.input, stack, "--explain_page")
    title = {"gradient": "Gradient times input", "attention": "Attention"}[options.explain]
    return stack.enter_context(ExplanationPage(output, f"{title} of each word"))


def _open_output(path: str, source: str, stack: ExitStack, option: str = "--output") -> TextIO:
    if path == "-":
        # Names of files need not be UTF-8.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]  # a real file here
        return sys.stdout
    if source != "-" and Path(path).exists() and Path(path).samefile(source):
        raise ConfigError(f"{path}: {option} would overwrite --input. Give it another name.")
    try:
        return stack.enter_context(
            Path(path).open("w", encoding="utf-8", errors="backslashreplace")
        )
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}.") from error


def _progress_bar(is_hidden: bool) -> Progress:
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


def main() -> None:
    """Run ``seq2seq-predict``: what the user can mend is a message and status 1."""
    try:
        run()
    except (ConfigError, DataError, CheckpointError, SearchError) as error:
        sys.exit(f"seq2seq-predict: {error}")
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + 2: what a shell reports for a process that Ctrl-C ended
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, has had enough; keep Python from flushing into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
