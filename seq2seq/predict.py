"""``seq2seq-predict``: decode with a checkpoint, which carries all that it needs."""

import json
import os
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from seq2seq.errors import CheckpointError, ConfigError, DataError
from seq2seq.predictor import SORTED_BATCHES, Device, Precision, check_batch_size, load
from seq2seq.search import SearchError, SearchOptions
from seq2seq.tasks.base import Prediction


def read_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """Yield the lines of a stream as they come.

    Raises:
        DataError: If a line is not UTF-8, naming it.
    """
    for number, line in enumerate(iter(stream.readline, b""), start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}:{number}: is not UTF-8 (byte {error.start + 1} of the line). "
                "Convert the file, for example with iconv."
            ) from error


def ready_chunks(lines: Iterator[str], size: int) -> Iterator[list[str]]:
    """Yield the lines that are there, at least one and at most ``size``, without waiting for more.

    So a person at a terminal gets an answer per line, and a pipe full batches.
    """
    waiting: queue.Queue[str | BaseException | None] = queue.Queue(maxsize=2 * size)

    def read() -> None:
        try:
            for line in lines:
                waiting.put(line)
            waiting.put(None)
        except BaseException as error:  # carried over to the thread that consumes
            waiting.put(error)

    threading.Thread(target=read, daemon=True).start()
    chunk: list[str] = []
    while True:
        item = waiting.get()
        if isinstance(item, str):
            chunk.append(item)
        if chunk and (not isinstance(item, str) or len(chunk) == size or waiting.empty()):
            yield chunk
            chunk = []
        if isinstance(item, BaseException):
            raise item
        if item is None:
            return


def format_text(_source: str, predictions: list[Prediction]) -> str:
    """Return one line; several hypotheses are separated by tabs."""
    return "\t".join(prediction.text for prediction in predictions)


def format_json(source: str, predictions: list[Prediction]) -> str:
    """Return one JSON object; further hypotheses are under ``n_best``."""
    records = [_record(prediction) for prediction in predictions]
    record = {"source": source, **records[0]}
    if len(records) > 1:
        record["n_best"] = records
    return json.dumps(record, ensure_ascii=False)


def _record(prediction: Prediction) -> dict[str, Any]:
    record: dict[str, Any] = {
        "text": prediction.text,
        "score": round(prediction.score, 5),
        "tokens": prediction.tokens,
        "token_scores": [round(value, 5) for value in prediction.token_log_probs],
    }
    if prediction.attention is not None:
        record["source_tokens"] = prediction.source_tokens
        # For each target token the source token that it attends to most.
        record["alignment"] = prediction.attention.argmax(dim=-1).tolist()
    return record


FORMATS = {"text": format_text, "jsonl": format_json}


def build_parser() -> ArgumentParser:
    """Return the parser of ``seq2seq-predict``."""
    parser = ArgumentParser(
        prog="seq2seq-predict",
        description="Decode with a checkpoint: one output line per input line, in order.",
    )
    parser.add_argument("--ckpt_path", type=str, required=True, help="Checkpoint to use.")
    parser.add_argument(
        "--input", type=str, default="-", help="File to read; - for standard input."
    )
    parser.add_argument(
        "--output", type=str, default="-", help="File to write; - for standard output."
    )
    parser.add_argument(
        "--format",
        type=Literal["text", "jsonl"],
        default="text",
        help="text: the best output, or n_best of them separated by tabs; jsonl: with scores.",
    )
    parser.add_argument(
        "--alignment",
        action="store_true",
        help="With jsonl: for each target token the source token that it attends to most.",
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
    parser.add_class_arguments(SearchOptions, skip={"return_attention"})
    return parser


def run(arguments: Sequence[str] | None = None) -> None:
    """Carry out ``seq2seq-predict``.

    Args:
        arguments: As on the command line; ``sys.argv`` when None.

    Raises:
        ConfigError: If options are out of range or do not fit together.
        DataError: If the input cannot be read, or the output not be written.
        CheckpointError: If the checkpoint cannot be used.
    """
    options = build_parser().parse_args(arguments)
    check_batch_size(options.batch_size)
    if options.alignment and options.format != "jsonl":
        raise ConfigError("--alignment has no place in text. Set --format jsonl.")
    names = {field.name for field in fields(SearchOptions)}
    search_options = SearchOptions(
        **{name: value for name, value in vars(options).items() if name in names},
        return_attention=options.alignment,
    )
    predictor = load(options.ckpt_path, options.device, options.precision)
    formatter = FORMATS[options.format]
    with ExitStack() as stack:
        source = _open_input(options.input, stack)
        output = _open_output(options.output, options.input, stack)
        is_typed = options.input == "-" and sys.stdin.isatty()
        progress = stack.enter_context(_progress_bar(is_hidden=is_typed or output.isatty()))
        done = progress.add_task("decoded", total=None)
        lines = read_lines(source, "standard input" if options.input == "-" else options.input)
        count = 0
        for chunk in ready_chunks(lines, options.batch_size * SORTED_BATCHES):
            found = predictor.predict_chunk(chunk, search_options, options.batch_size, count)
            for item, predictions in zip(chunk, found, strict=True):
                print(formatter(item, predictions), file=output)
            output.flush()
            count += len(chunk)
            progress.advance(done, len(chunk))


def _open_input(path: str, stack: ExitStack) -> BinaryIO:
    if path == "-":
        # Not sys.stdin.buffer: Python closes that when it ends, and aborts if the thread that reads
        # ahead is still waiting in it.
        return os.fdopen(sys.stdin.fileno(), "rb", closefd=False)
    try:
        return stack.enter_context(Path(path).open("rb"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error


def _open_output(path: str, source: str, stack: ExitStack) -> TextIO:
    if path == "-":
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # a real file here
        return sys.stdout
    if source != "-" and Path(path).exists() and Path(path).samefile(source):
        raise ConfigError(f"{path}: --output would overwrite --input. Give it another name.")
    try:
        return stack.enter_context(Path(path).open("w", encoding="utf-8"))
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
