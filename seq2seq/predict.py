"""``seq2seq-predict``: decode with a checkpoint, which carries all that it needs."""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from jsonargparse import SUPPRESS, ArgumentParser, Namespace

from seq2seq.errors import CheckpointError, ConfigError, DataError
from seq2seq.explanation import ExplanationKind
from seq2seq.forecast import (
    ForecastOptions,
    add_forecast_arguments,
    check_options,
    forecast_file,
    plot_forecast,
    write_forecast,
)
from seq2seq.parallel_prediction import (
    Outcome,
    ProcessError,
    check_parallel,
    is_parallel,
    predict_in_parallel,
)
from seq2seq.prediction_input import open_items, ready_chunks
from seq2seq.prediction_output import Format, open_output, open_page, progress_bar
from seq2seq.prediction_run import PredictionRun, search_options, take_share, write_parts
from seq2seq.predictor import Device, Precision, check_batch_size, find_device, load_task
from seq2seq.search import SearchError, SearchOptions
from seq2seq.tasks.base import SequenceTask
from seq2seq.tasks.forecasting import Forecaster


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
        "--clips",
        type=int,
        default=1,
        help="For videos: clips per video, whose probabilities are averaged.",
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
    parser.add_argument(
        "--devices",
        type=int,
        default=1,
        help=(
            "Number of processes that share the inputs, each with a GPU of its own or a share of "
            "the processor. The output, a file, is the same as with one."
        ),
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help=(
            "Go on with the finished parts that a run of the same command has left in "
            "OUTPUT.parts; where there are none, begin, and keep them."
        ),
    )
    parser.add_argument("--process", type=int | None, default=None, help=SUPPRESS)
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
        ProcessError: If one of several processes has failed or was killed.
    """
    parser = build_parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    _check(options)
    if options.process is None and is_parallel(options):
        outcome = predict_in_parallel(options, given)
    else:
        if options.process is not None:
            take_share(options)
        task = load_task(options.ckpt_path)
        names = (name for name in vars(options) if name != "process")
        check_options(task, [name for name in names if options[name] != parser.get_default(name)])
        if isinstance(task, Forecaster):
            _forecast(task.to(find_device(options.device)).eval(), options)
            return
        assert isinstance(task, SequenceTask)
        prediction_run = PredictionRun(task, options)
        if options.process is not None:
            write_parts(prediction_run)
            return
        outcome = _predict(prediction_run)
    if outcome.unusable:
        raise DataError(
            f"{outcome.unusable} of {outcome.inputs} inputs could not be used; see the rows marked "
            "with an error."
        )


def _check(options: Namespace) -> None:
    """Refuse what can be seen to be wrong without the checkpoint."""
    check_batch_size(options.batch_size)
    if options.alignment and options.format != "jsonl":
        raise ConfigError(f"--alignment has no place in {options.format}. Set --format jsonl.")
    if options.clips < 1:
        raise ConfigError(f"--clips is {options.clips}; it must be 1 or more.")
    _check_explanation(options)
    search_options(options)
    check_parallel(options)


def _predict(prediction_run: PredictionRun) -> Outcome:
    options = prediction_run.options
    inputs = unusable = 0
    with ExitStack() as stack:
        items = open_items(options.input, prediction_run.kind, stack)
        figures = prediction_run.open_figures()
        output = open_output(options.output, options.input, stack)
        page = open_page(options, stack)
        is_typed = options.input == "-" and sys.stdin.isatty()
        progress = stack.enter_context(progress_bar(is_hidden=is_typed or output.isatty()))
        done = progress.add_task("decoded", total=None)
        if prediction_run.format.header is not None:
            print(prediction_run.format.header, file=output)
        for chunk in ready_chunks(items, prediction_run.chunk_size):
            for row in prediction_run.rows(chunk, inputs, figures, page):
                print(row.text, file=output, flush=options.per_frame)
                unusable += row.has_error
            output.flush()
            inputs += len(chunk)
            progress.advance(done, len(chunk))
    return Outcome(inputs, unusable)


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
        write_forecast(found, open_output(options.output, source, stack))
    if plot is not None:
        plot_forecast(found, plot, f"{Path(source).name}: {options.horizon} steps on")


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


def main() -> None:
    """Run ``seq2seq-predict``: what the user can mend is a message and status 1."""
    try:
        run()
    except (ConfigError, DataError, CheckpointError, SearchError, ProcessError) as error:
        sys.exit(f"seq2seq-predict: {error}")
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + 2: what a shell reports for a process that Ctrl-C ended
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, has had enough; keep Python from flushing into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
