"""``seq2seq-predict --devices N``: starts the processes, and puts their parts together."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from jsonargparse import Namespace

from seq2seq.errors import ConfigError, DataError
from seq2seq.prediction_output import check_output, open_output, open_page, progress_bar
from seq2seq.prediction_parts import PartFolder
from seq2seq.predictor import find_device

_LOOK_SECONDS = 0.1  # between two looks at the processes
_END_SECONDS = 10.0  # for a process to end when asked to
_PREFIX = "seq2seq-predict: "  # of what a process says that the user can mend
_STANDARD_INPUT = "standard_input"


class ProcessError(RuntimeError):
    """A process of ``--devices`` that failed or was killed."""


class Outcome(NamedTuple):
    """What a prediction has come to.

    Attributes:
        inputs: Number of inputs.
        unusable: How many rows have an error.
    """

    inputs: int
    unusable: int


def check_parallel(options: Namespace) -> None:
    """Refuse what cannot work with ``--devices`` or ``--resume``.

    Raises:
        ConfigError: If so.
    """
    if options.devices < 1:
        raise ConfigError(f"--devices {options.devices} must be at least 1.")
    if not is_parallel(options):
        return
    name = "--resume" if options.resume else f"--devices {options.devices}"
    output = Path(options.output)
    if options.output == "-" or (output.exists() and not output.is_file()):
        raise ConfigError(
            f"{name}: the output is put together in the end, from parts that are kept beside it. "
            "Set --output to a file."
        )
    source = Path(options.input)
    if options.input != "-" and source.exists() and not (source.is_file() or source.is_dir()):
        raise ConfigError(
            f"{name}: --input {source} is neither a file nor a folder, and each process reads the "
            "input from its beginning. Write it to a file, or give it as standard input."
        )
    for path, option in ((options.output, "--output"), (options.explain_page, "--explain_page")):
        if path is not None and path != "-":
            check_output(path, options.input, option)
    if find_device(options.device) == "cuda" and options.devices > torch.cuda.device_count():
        raise ConfigError(
            f"--devices {options.devices}: the visible GPUs are {torch.cuda.device_count()}. Set "
            "--devices to as many, or --device cpu."
        )


def is_parallel(options: Namespace) -> bool:
    """Return whether the output is made in parts."""
    return options.devices > 1 or bool(options.resume)


def predict_in_parallel(options: Namespace, arguments: Sequence[str]) -> Outcome:
    """Let processes decode the input, and put what they have made together.

    The model is loaded in the processes alone. Where one of them fails, the others are ended, and
    the parts that are finished stay for ``--resume``.

    Args:
        options: Those of ``seq2seq-predict``.
        arguments: The command line that they are from.

    Raises:
        ConfigError: If there are parts of a run that is not to be gone on with, or cannot be.
        DataError: If the output or a part cannot be written.
        ProcessError: If a process has failed or was killed.
    """
    folder = PartFolder(options.output)
    folder.begin(options)
    if options.input == "-":
        _keep_standard_input(folder)
    try:
        _run_processes(options, arguments, folder)
    except ProcessError as error:
        count = folder.count()
        if not count:
            shutil.rmtree(folder.path)
            raise
        noun = "part is" if count == 1 else "parts are"
        raise ProcessError(
            f"{error} {count} finished {noun} kept in {folder.path}: add --resume to the same "
            "command to go on from there, or delete the folder to begin anew."
        ) from error
    outcome = _assemble(options, folder)
    shutil.rmtree(folder.path)
    return outcome


def _keep_standard_input(folder: PartFolder) -> None:
    """Copy standard input into the folder, as only one process could read it."""
    path = folder.path / _STANDARD_INPUT
    try:
        with os.fdopen(sys.stdin.fileno(), "rb", closefd=False) as source, path.open("wb") as file:
            shutil.copyfileobj(source, file)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}.") from error


def _run_processes(options: Namespace, arguments: Sequence[str], folder: PartFolder) -> None:
    source = os.devnull if options.input != "-" else folder.path / _STANDARD_INPUT
    processes: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        logs = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(options.devices)]
        stack.callback(_end, processes)
        progress = stack.enter_context(progress_bar(is_hidden=False))
        done = progress.add_task("parts finished", total=None)
        for number, log in enumerate(logs):
            command = [sys.executable, "-m", "seq2seq.predict", *arguments]
            with Path(source).open("rb") as stdin:
                processes.append(
                    subprocess.Popen(  # noqa: S603  # this program
                        [*command, "--process", str(number)],
                        stdin=stdin,
                        stdout=subprocess.DEVNULL,
                        stderr=log,
                    )
                )
        states: list[int | None] = [None]
        while None in states and not any(states):
            time.sleep(_LOOK_SECONDS)
            states = [process.poll() for process in processes]
            progress.update(done, completed=folder.count())
        for number, state in enumerate(states):
            if state:
                name = f"process {number + 1} of {options.devices}"
                raise ProcessError(f"{name} {_reason(state, logs[number])}")
        # Warnings, which mostly are the same in all.
        sys.stderr.write("".join(dict.fromkeys(map(_text, logs))))


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()  # does nothing where it has ended
    for process in processes:
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _reason(state: int, log: BinaryIO) -> str:
    """Return how a process has ended, and what it said; a longer text is shown before."""
    text = _text(log)
    message = text[text.rfind(_PREFIX) :].removeprefix(_PREFIX).strip()
    is_mendable = _PREFIX in text
    if not is_mendable:
        sys.stderr.write(text)
    if state < 0:
        hint = " Perhaps memory ran out: try fewer --devices or a smaller --batch_size."
        name = signal.Signals(-state).name
        return f"was ended by signal {-state} ({name}).{hint if name == 'SIGKILL' else ''}"
    if is_mendable:
        return f"failed with status {state}: {message}"
    return f"failed with status {state}; what it wrote stands above."


def _text(log: BinaryIO) -> str:
    log.seek(0)
    return log.read().decode("utf-8", "backslashreplace")


def _assemble(options: Namespace, folder: PartFolder) -> Outcome:
    inputs = unusable = 0
    with ExitStack() as stack:
        output = open_output(options.output, options.input, stack)
        page = open_page(options, stack)
        for part in folder.read_all():
            if not inputs and part.header is not None:
                output.write(f"{part.header}\n")
            output.write(part.rows)
            if page is not None:
                page.output.write(part.page)
            inputs += part.inputs
            unusable += part.unusable
    return Outcome(inputs, unusable)
