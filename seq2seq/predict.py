"""``seq2seq-predict`` and ``seq2seq.load``: use a checkpoint, which carries all that it needs."""

import json
import os
import pickle
import queue
import sys
import textwrap
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from seq2seq.errors import CheckpointError, ConfigError, DataError
from seq2seq.search import SearchError, SearchOptions
from seq2seq.tasks.base import CHECKPOINT_KEY, Prediction, SequenceTask
from seq2seq.tasks.translation import Translator

TASKS: dict[str, type[SequenceTask]] = {"Translator": Translator}
_SORTED_BATCHES = 16  # batches' worth of lines that are sorted by length together
_ARCHIVE = b"PK\x03\x04"  # how every file that torch.save writes begins: it is a ZIP archive
_EMPTY = Prediction(text="", score=0.0, tokens=[], token_log_probs=[])

Device = Literal["auto", "cpu", "cuda"]


class Predictor:
    """A trained task, ready for raw inputs.

    Args:
        task: The task, with its tokenizers.
        device: Where to run; ``auto`` takes a GPU if there is one.
    """

    def __init__(self, task: SequenceTask, device: Device = "auto") -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        elif device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("--device cuda: no GPU is visible. Use --device cpu or auto.")
        self.task = task.to(device).eval()

    def predict(self, items: Iterable[str], *, batch_size: int = 64, **decoding: Any) -> list[str]:
        """Return the best output for each input, in order.

        Args:
            items: Raw inputs; an empty one gives an empty output.
            batch_size: How many inputs to decode together; it does not change the outputs.
            decoding: Fields of ``SearchOptions``, such as ``beam_size=1``.

        Raises:
            ConfigError: If ``batch_size`` or a decoding option is out of range.
        """
        options = replace(self.task.decoding, **decoding)
        return [best.text for best, *_ in self.stream(items, options, batch_size)]

    def stream(
        self, items: Iterable[str], options: SearchOptions, batch_size: int = 64
    ) -> Iterator[list[Prediction]]:
        """Yield the predictions of each input, best first, in order, reading ahead a little."""
        _check_batch_size(batch_size)
        items, done = iter(items), 0
        while chunk := list(islice(items, batch_size * _SORTED_BATCHES)):
            yield from self.predict_chunk(chunk, options, batch_size, done)
            done += len(chunk)

    def predict_chunk(
        self, items: Sequence[str], options: SearchOptions, batch_size: int = 64, offset: int = 0
    ) -> list[list[Prediction]]:
        """Return the predictions of each input, best first.

        Args:
            items: Raw inputs.
            options: How to search.
            batch_size: How many inputs to decode together.
            offset: Number of inputs before these, so that sampling gives each its own numbers.

        Raises:
            ConfigError: If ``batch_size`` is less than 1.
        """
        _check_batch_size(batch_size)
        # Inputs of like length share a batch, so that little is spent on padding.
        order = sorted(
            (row for row, item in enumerate(items) if item.strip()),
            key=lambda row: len(items[row]),
        )
        predictions: list[list[Prediction]] = [[_EMPTY] for _ in items]
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = self.task.collate([items[row] for row in rows])
            batch = batch._replace(index=torch.tensor([offset + row for row in rows]))
            batch = self.task.transfer_batch_to_device(batch, self.task.device, 0)
            for row, found in zip(rows, self.task.predict_batch(batch, options), strict=True):
                predictions[row] = found
        return predictions


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} must be at least 1.")


def load(path: str | Path, device: Device = "auto") -> Predictor:
    """Return a predictor for a checkpoint, without its configuration or training data.

    Args:
        path: A ``.ckpt`` file that ``seq2seq fit`` wrote.
        device: Where to run; ``auto`` takes a GPU if there is one.

    Raises:
        CheckpointError: If the file is missing, damaged, foreign, of another version's format, or
            holds anything but tensors and plain values (which is refused, not executed).
    """
    checkpoint = _read_checkpoint(Path(path))
    own = checkpoint[CHECKPOINT_KEY]
    if own["task"] not in TASKS:
        raise CheckpointError(
            f"{path}: is a checkpoint of the task {own['task']!r} (seq2seq {own['version']}); this "
            f"version can predict with {', '.join(TASKS)}."
        )
    try:
        # Lightning adds entries of its own, which begin with an underscore.
        saved = checkpoint["hyper_parameters"].items()
        task = TASKS[own["task"]](**{name: value for name, value in saved if name[0] != "_"})
        task.on_load_checkpoint(checkpoint)
        task.load_state_dict(checkpoint["state_dict"])
    except (KeyError, RuntimeError, TypeError, ConfigError, DataError) as error:
        raise CheckpointError(
            f"{path}: was written by seq2seq {own['version']} and does not fit this version "
            f"(see CHANGELOG.md): {textwrap.shorten(str(error), 300)}"
        ) from error
    return Predictor(task, device)


def _read_checkpoint(path: Path) -> dict[str, Any]:
    _check_archive(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds Python objects beside tensors and plain values, or is damaged. It was "
            "refused and nothing in it was executed. Use a checkpoint that `seq2seq fit` wrote."
        ) from error
    # Which error it is depends on the first wrong byte.
    except Exception as error:
        raise CheckpointError(
            f"{path}: is damaged or was not written to its end. Use another one, such as last.ckpt."
        ) from error
    own = checkpoint.get(CHECKPOINT_KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(own, dict) or not {"task", "version"} <= own.keys():
        raise CheckpointError(
            f"{path}: is no checkpoint of this project (its entry {CHECKPOINT_KEY!r} is missing). "
            "Use one that `seq2seq fit` wrote."
        )
    return checkpoint  # type: ignore[no-any-return]  # a dictionary, as was just seen


def _check_archive(path: Path) -> None:
    """Refuse what `seq2seq fit` cannot have written, before anything tries to read it."""
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_ARCHIVE))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file.") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}.") from error
    if not _ARCHIVE.startswith(beginning):
        raise CheckpointError(
            f"{path}: is no checkpoint, and nothing in it was executed. Use one that `seq2seq fit` "
            "wrote."
        )


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
        "--batch_size", type=int, default=64, help="Inputs decoded together; changes no output."
    )
    parser.add_argument(
        "--device",
        type=Literal["auto", "cpu", "cuda"],
        default="auto",
        help="auto takes a GPU if there is one.",
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
    _check_batch_size(options.batch_size)
    if options.alignment and options.format != "jsonl":
        raise ConfigError("--alignment has no place in text. Set --format jsonl.")
    names = {field.name for field in fields(SearchOptions)}
    search_options = SearchOptions(
        **{name: value for name, value in vars(options).items() if name in names},
        return_attention=options.alignment,
    )
    predictor = load(options.ckpt_path, options.device)
    formatter = FORMATS[options.format]
    with ExitStack() as stack:
        source = _open_input(options.input, stack)
        output = _open_output(options.output, options.input, stack)
        progress = stack.enter_context(_progress_bar())
        done = progress.add_task("decoded")
        lines = read_lines(source, "standard input" if options.input == "-" else options.input)
        count = 0
        for chunk in ready_chunks(lines, options.batch_size * _SORTED_BATCHES):
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


def _progress_bar() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        # Not in a pipe or a log, and not in the way of a person who types.
        disable=not console.is_terminal or sys.stdin.isatty(),
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
