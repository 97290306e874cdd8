import csv
import io
import json
import os
import pty
import subprocess
import sys

import pytest

from seq2seq.predict import main

SCRIPT = f"{sys.executable} -m seq2seq.predict"
LINES = [
    "the 3rd of May, 2021",
    "",
    "7.11.1987",
    "MONDAY, 4 JANUARY 2038",
    "  ",
    "☃",
    "May 3, 1950",
]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    return path


@pytest.fixture
def predict(checkpoint, source, tmp_path, monkeypatch):
    """Return what runs the script in this process, from file to file, and gives its output."""

    def run(*options):
        output = tmp_path / "out.txt"
        files = ["--input", str(source), "--output", str(output)]
        arguments = ["seq2seq-predict", "--ckpt_path", str(checkpoint), *files, *options]
        monkeypatch.setattr(sys, "argv", arguments)
        main()
        return output.read_text(encoding="utf-8")

    return run


def shell(command, stdin=None):
    return subprocess.run(
        ["/bin/sh", "-c", command], input=stdin, capture_output=True, env=quiet(), timeout=120
    )


def quiet():
    return {**os.environ, "OMP_NUM_THREADS": "1", "LC_ALL": "C"}


# In a real pipe.


def test_a_pipe_gives_a_line_for_each_line(checkpoint, predictor):
    text = "\ufeffthe 3rd of May, 2021\r\n\r\n7.11.1987\nMay 3, 1950\n \nno newline ☃"
    done = shell(f"cat | {SCRIPT} --ckpt_path {checkpoint} | cat", text.encode())
    assert done.stderr == b""
    assert done.returncode == 0
    sources = ["the 3rd of May, 2021", "", "7.11.1987", "May 3, 1950", "", "no newline ☃"]
    expected = "".join(f"{output}\n" for output in predictor.predict(sources))
    assert done.stdout.decode() == expected


def test_a_person_gets_an_answer_to_each_line(checkpoint):
    with subprocess.Popen(
        [*SCRIPT.split(), "--ckpt_path", checkpoint, "--beam_size", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=quiet(),
    ) as process:
        for line in (b"7.11.1987\n", b"\n", b"May 3, 1950\n"):
            process.stdin.write(line)
            process.stdin.flush()
            answer = process.stdout.readline()  # before the next line is written
            assert answer.endswith(b"\n")
            assert (answer == b"\n") == (line == b"\n")
        rest, errors = process.communicate(timeout=120)
    assert (rest, errors, process.returncode) == (b"", b"", 0)


def test_a_reader_that_leaves_ends_the_script_without_a_word(checkpoint):
    # The writer stays, so that the thread that reads ahead is waiting when the script ends.
    done = shell(
        f"while echo 7.11.1987; do sleep 0.1; done 2> /dev/null"
        f" | {SCRIPT} --ckpt_path {checkpoint} --beam_size 1 | head -n 1"
    )
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1


def test_invalid_text_in_a_pipe_loses_nothing_before_it(checkpoint):
    done = shell(
        rf"printf '7.11.1987\nMay 3, 1950\ncaf\351\n7.11.1987\n'"
        f" | {{ {SCRIPT} --ckpt_path {checkpoint}; echo status $?; }}"
    )
    assert done.stdout.count(b"\n") == 3
    assert done.stdout.endswith(b"\nstatus 1\n")
    assert done.stderr.decode() == (
        "seq2seq-predict: standard input:3: is not UTF-8 (byte 4 of the line). "
        "Convert the file, for example with iconv.\n"
    )


def test_a_missing_checkpoint_is_one_line_and_a_status(tmp_path):
    done = shell(f"echo 7.11.1987 | {SCRIPT} --ckpt_path {tmp_path}/none.ckpt")
    assert done.returncode == 1
    assert done.stdout == b""
    expected = f"seq2seq-predict: {tmp_path}/none.ckpt: there is no such file.\n"
    assert done.stderr.decode() == expected


# From file to file.


def test_files_are_translated_line_by_line(predict, predictor, capfd):
    expected = "".join(f"{text}\n" for text in predictor.predict(LINES))
    assert predict() == expected
    assert capfd.readouterr() == ("", "")


def test_the_batch_size_changes_nothing(predict):
    assert predict("--batch_size", "1") == predict("--batch_size", "64")
    sample = ("--method", "sample", "--temperature", "2", "--seed", "3")
    assert predict(*sample, "--batch_size", "2") == predict(*sample)


def test_greedy_search_is_a_beam_of_one(predict, predictor):
    expected = predictor.predict(LINES, beam_size=1)
    assert predict("--beam_size", "1").split("\n")[:-1] == expected


def test_several_outputs_are_separated_by_tabs(predict, predictor):
    rows = predict("--n_best", "3").split("\n")[:-1]
    assert len(rows) == len(LINES)
    for line, row, best in zip(LINES, rows, predictor.predict(LINES), strict=True):
        assert row.split("\t")[0] == best
        assert row.count("\t") == (2 if line.strip() else 0)


def test_jsonl_has_text_scores_and_tokens(predict, predictor):
    records = [json.loads(line) for line in predict("--format", "jsonl").splitlines()]
    assert [record["source"] for record in records] == LINES
    assert [record["text"] for record in records] == predictor.predict(LINES)
    first, empty = records[:2]
    assert set(first) == {"source", "text", "score", "tokens", "token_scores"}
    assert len(first["tokens"]) == len(first["token_scores"])
    mean = sum(first["token_scores"]) / len(first["tokens"])
    assert first["score"] == pytest.approx(mean, abs=1e-3)
    assert (empty["text"], empty["tokens"], empty["token_scores"]) == ("", [], [])


def test_jsonl_has_the_alignment_and_further_outputs_on_request(predict):
    output = predict("--format", "jsonl", "--alignment", "--n_best", "2")
    first, empty, *_ = map(json.loads, output.splitlines())
    assert len(first["alignment"]) == len(first["tokens"])
    assert set(first["alignment"]) <= set(range(len(first["source_tokens"])))
    assert first["n_best"][0]["text"] == first["text"]
    assert first["n_best"][0]["score"] >= first["n_best"][1]["score"]
    assert empty["text"] == ""


def test_csv_can_be_read_back(predict, predictor):
    rows = list(csv.DictReader(io.StringIO(predict("--format", "csv"))))
    assert list(rows[0]) == ["source", "text", "score", "error"]
    assert [row["source"] for row in rows] == LINES
    assert [row["text"] for row in rows] == predictor.predict(LINES)
    assert {row["error"] for row in rows} == {""}


def test_each_line_has_a_figure_of_its_attention(predict, tmp_path):
    figures = tmp_path / "figures"
    jsonl = ("--format", "jsonl", "--n_best", "2", "--batch_size", "2")
    output = predict(*jsonl, "--attention_dir", str(figures))
    assert output == predict(*jsonl)
    names = [f"{number:06}.png" for number, line in enumerate(LINES, start=1) if line.strip()]
    assert sorted(path.name for path in figures.iterdir()) == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in figures.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n_best", "6"], "n_best=6 is more than beam_size=5 can find"),
        (["--batch_size", "0"], "batch_size=0 must be at least 1"),
        (["--alignment"], "--alignment has no place in text"),
        (["--alignment", "--format", "csv"], "--alignment has no place in csv"),
        (["--attention_dir", "in.txt"], "in.txt: cannot be made: File exists"),
        (["--input", "none.txt"], "none.txt: cannot be read: No such file"),
        (["--input", "."], ".: is a folder, and this checkpoint reads text. Give a text file."),
        (["--input", "dog.jpg"], "dog.jpg: is a picture by its name, and this checkpoint reads"),
        (["--output", "none/out.txt"], "none/out.txt: cannot be written: No such file"),
        (["--ckpt_path", "none.ckpt"], "none.ckpt: there is no such file"),
    ],
)
def test_what_the_user_can_mend_is_one_line(predict, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dog.jpg").touch()
    with pytest.raises(SystemExit) as ended:
        predict(*options)
    assert str(ended.value.code).startswith(f"seq2seq-predict: {message}")
    assert "\n" not in ended.value.code


def test_the_input_is_never_overwritten(predict, source):
    before = source.read_bytes()
    with pytest.raises(SystemExit) as ended:
        predict("--output", str(source))
    assert "--output would overwrite --input" in ended.value.code
    assert source.read_bytes() == before


def test_help_shows_every_option(predict, capsys):
    with pytest.raises(SystemExit) as ended:
        predict("--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in (
        *("ckpt_path", "input", "output", "format", "alignment", "attention_dir", "batch_size"),
        *(
            "device",
            "devices",
            "resume",
            "method",
            "beam_size",
            "n_best",
            "max_length",
            "length_penalty",
            "temperature",
            "seed",
        ),
    ):
        assert f"--{option}" in text
    assert "--process" not in text  # which a run gives to its own processes alone


def run_in_terminal(*arguments, text=None):
    """Run the script on a pseudo-terminal, but for output to a file, and for ``text`` in a pipe.

    Without ``text``, standard input is the terminal as well, and a date is typed there.
    """
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "seq2seq.predict", *map(str, arguments)]
    output = subprocess.PIPE if "--output" in arguments else follower
    source = {"stdin": follower} if text is None else {"input": text}
    if text is None:
        os.write(leader, b"May 3, 1950\n\x04")  # Ctrl-D ends it
    done = subprocess.run(command, **source, stdout=output, stderr=follower, timeout=100)
    assert done.returncode == 0
    os.write(follower, b"the end")  # so that there is always something to read
    shown = ""
    while "the end" not in shown:  # a terminal gives a few thousand bytes at a time
        shown += os.read(leader, 100_000).decode()
    os.close(follower)
    os.close(leader)
    return shown.removesuffix("the end")


def test_answers_on_a_terminal_stand_alone(checkpoint):
    shown = run_in_terminal("--ckpt_path", checkpoint, text=b"the 3rd of May, 2021\n")
    assert len(shown.splitlines()) == 1
    assert "decoded" not in shown


def test_a_bar_is_shown_while_a_file_is_written(checkpoint, tmp_path):
    output = tmp_path / "output.txt"
    shown = run_in_terminal(
        "--ckpt_path", checkpoint, "--output", output, text=b"the 3rd of May, 2021\n" * 3
    )
    assert "decoded 3" in shown
    assert len(output.read_text().splitlines()) == 3


def test_the_bar_does_not_disturb_who_types(checkpoint, tmp_path):
    output = tmp_path / "output.txt"
    shown = run_in_terminal("--ckpt_path", checkpoint, "--output", output)
    assert "decoded" not in shown
    assert len(output.read_text().splitlines()) == 1


def test_a_bar_is_shown_for_a_file_started_from_a_terminal(checkpoint, source, tmp_path):
    shown = run_in_terminal(
        *("--ckpt_path", checkpoint, "--input", source, "--output", tmp_path / "output.txt")
    )
    assert f"decoded {len(LINES)}" in shown
