"""The processes of ``seq2seq-predict`` themselves: how they end, and what they leave."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_sentiment import LINES, save_classifier

from seq2seq import predict
from seq2seq.parallel_prediction import ProcessError

SCRIPT = [sys.executable, "-m", "seq2seq.predict", "--device", "cpu"]
REPEATS = 200  # of the lines; with a batch of 1, a part has 16 of them


@pytest.fixture(scope="module")
def sentiment(tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("sentiment"))


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.txt"
    lines = (f"{number} {line}\n" for number in range(REPEATS) for line in LINES)
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path):
    """Return what predicts in this process."""

    def run(checkpoint, source, *options):
        output = tmp_path / "one.txt"
        files = ["--ckpt_path", checkpoint, "--input", source, "--output", output]
        predict.run([*map(str, files), "--device", "cpu", "--batch_size", "1", *options])
        return output.read_text()

    return run


# A process that ends, with a script in its place; the other one would go on for long.


@pytest.mark.parametrize(
    ("ending", "message", "shown"),
    [
        ("kill -9 $$", r"was ended by signal 9 \(SIGKILL\)\. Perhaps .*: try fewer", ""),
        ("kill -15 $$", r"was ended by signal 15 \(SIGTERM\)\.$", ""),
        ("echo seq2seq-predict: x.txt: bad. >&2; exit 1", r"failed with status 1: x\.txt: bad", ""),
        ("echo Oh. >&2; exit 3", r"failed with status 3; what it wrote stands above", "Oh.\n"),
    ],
)
def test_the_whole_run_fails_with_one_process(
    source, tmp_path, monkeypatch, capfd, ending, message, shown
):
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\ncase "$*" in *"--process 1") {ending};; esac\nexec sleep 100\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    arguments = ["--ckpt_path", "none.ckpt", "--input", str(source), "--devices", "2"]
    start = time.monotonic()
    with pytest.raises(ProcessError, match=r"^process 2 of 2 " + message):
        predict.run([*arguments, "--device", "cpu", "--output", str(tmp_path / "out.txt")])
    assert time.monotonic() - start < 50
    assert capfd.readouterr().err == shown
    assert not (tmp_path / "out.txt.parts").exists()


# Real processes.


@pytest.mark.slow
def test_standard_input_is_shared_by_processes(run, sentiment, source):
    expected = run(sentiment, source, "--format", "csv")
    output = source.with_name("piped.csv")
    files = ["--ckpt_path", str(sentiment), "--output", str(output), "--format", "csv"]
    done = subprocess.run(
        [*SCRIPT, *files, "--batch_size", "1", "--devices", "2"],
        input=source.read_bytes(),
        capture_output=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert output.read_text() == expected
    assert not output.with_name("piped.csv.parts").exists()


def children(process):
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes below /proc")
def test_after_a_kill_the_run_fails_and_goes_on_where_it_was(run, sentiment, source):
    expected = run(sentiment, source, "--format", "jsonl")
    output = source.with_name("killed.jsonl")
    parts = output.with_name("killed.jsonl.parts")
    files = ["--ckpt_path", str(sentiment), "--input", str(source), "--output", str(output)]
    command = [*SCRIPT, *files, "--format", "jsonl", "--batch_size", "1", "--devices", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 200
        while len(list(parts.glob("[0-9]*.json"))) < 3:
            assert time.monotonic() < end
            time.sleep(0.01)
        first, second = children(process)
        os.kill(int(second), signal.SIGKILL)
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    message = errors.decode()
    assert message.startswith("seq2seq-predict: process 2 of 2 was ended by signal 9 (SIGKILL).")
    assert "finished parts are kept in" in message
    assert not Path(f"/proc/{first}").exists()
    assert not output.exists()
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("[0-9]*.json")}
    assert 3 <= len(kept) < REPEATS * len(LINES) / 16
    done = subprocess.run([*command, "--resume"], capture_output=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, b"")
    assert output.read_text() == expected
    assert not parts.exists()
