"""Several processes write what one writes; and a run that was killed is gone on with."""

import os

import pytest
import torch
import toy_classifier
from toy_captioner import save_captioner, write_pictures
from toy_sentiment import WORDS, save_classifier

from seq2seq import parallel_prediction, predict
from seq2seq.errors import ConfigError, DataError
from seq2seq.parallel_prediction import ProcessError
from seq2seq.prediction_parts import Part, cut

# A batch of 1 makes parts of 16 lines.
LINES = [" ".join(WORDS[: 1 + number % 5]) + "  !" * (number % 3) for number in range(37)]
LINES[5], LINES[21] = "", "   "


@pytest.fixture(scope="module")
def sentiment(tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("sentiment"), attention="bilinear")


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    return save_captioner(tmp_path_factory.mktemp("captioner"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    return path


@pytest.fixture
def in_turn(monkeypatch):
    """Let the processes be this one, one after the other; return their numbers, as they come."""
    begun = []

    def run_in_turn(options, arguments, folder):
        assert folder.path.is_dir()
        for number in range(options.devices):
            begun.append(number)
            predict.run([*arguments, "--process", str(number)])

    monkeypatch.setattr(parallel_prediction, "_run_processes", run_in_turn)
    return begun


@pytest.fixture
def run(in_turn, tmp_path):  # noqa: ARG001  # takes the place of processes
    """Return what predicts into a file, and gives what is written, if anything."""

    def run(checkpoint, source, *options, name="out.txt"):
        output = tmp_path / name
        files = ["--ckpt_path", checkpoint, "--input", source, "--output", output]
        arguments = map(str, [*files, "--device", "cpu", "--batch_size", "1", *options])
        try:
            predict.run(list(arguments))
        except DataError as error:
            if "inputs could not be used" not in str(error):
                raise
            return output.read_text() + str(error)
        return output.read_text()

    return run


# Parts.


@pytest.mark.parametrize("count", [*range(14), 40])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_parts_are_the_input_in_its_order(count, processes):
    items = [str(number) for number in range(count)]
    parts = list(cut(iter(items), 4, processes))
    assert [item for part in parts for item in part.items] == items
    assert [part.number for part in parts] == list(range(len(parts)))
    assert [part.first for part in parts] == [
        sum(len(part.items) for part in parts[:number]) for number in range(len(parts))
    ]
    assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert max(len(part.items) for part in parts) <= 4


def test_an_input_that_is_long_enough_is_cut_as_for_one_process():
    items = [str(number) for number in range(40)]
    assert list(cut(iter(items), 4, 5)) == list(cut(iter(items), 4, 1))


def test_few_inputs_are_shared_by_all_processes():
    parts = cut(iter("abcdefg"), 100, 3)
    assert [part.items for part in parts] == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert [part.items for part in cut(iter("ab"), 100, 3)] == [["a"], ["b"]]


def test_a_part_is_known_by_its_inputs_its_place_and_its_files(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"123")
    part = Part(1, 4, [str(file)], is_last=True)
    digest = part.digest("picture")
    others = [part._replace(first=3), part._replace(is_last=False), part._replace(items=["b"])]
    assert all(other.digest("picture") != digest for other in others)
    assert part.digest("picture") == digest
    file.write_bytes(b"1234")
    assert part.digest("picture") != digest
    assert Part(0, 0, ["a\0b", "a\udce9b"], is_last=True).digest("picture")


# Several processes are as one.


@pytest.mark.parametrize(("kind", "devices"), [("text", 2), ("jsonl", 3), ("csv", 2)])
@pytest.mark.parametrize("count", [0, 1, 5, 37])
def test_several_processes_write_what_one_writes(run, sentiment, source, kind, devices, count):
    source.write_text("".join(f"{line}\n" for line in LINES[:count]))
    options = (sentiment, source, "--format", kind)
    assert run(*options, "--devices", devices) == run(*options, name="one.txt")
    assert not source.with_name("out.txt.parts").exists()


def test_samples_are_those_of_one_process(run, captioner, pictures, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{pictures / 'dog.jpg'}\n" * 9)
    sample = ("--method", "sample", "--seed", "5", "--max_length", "6", "--n_best", "2")
    together = run(captioner, listed, *sample, "--devices", "2")
    assert together == run(captioner, listed, *sample)
    assert len(set(together.splitlines())) > 5


def test_a_page_of_explanations_is_as_of_one_process(run, sentiment, source, tmp_path):
    written = []
    for devices in (1, 2):
        page = tmp_path / f"{devices}.html"
        explain = ("--explain", "attention", "--explain_page", page, "--format", "jsonl")
        rows = run(sentiment, source, *explain, "--devices", devices)
        assert rows.count('"contributions"') == len(LINES) - 2
        written.append((rows, page.read_text()))
    assert written[0] == written[1]
    assert written[0][1].count("<section>") == len(LINES)


def test_figures_have_the_names_they_have_with_one_process(run, captioner, pictures, tmp_path):
    # None of the four parts has all three that would be called dog.png.
    listed = tmp_path / "list.txt"
    names = ["b/dog.jpg", "empty.png", "dog.jpg", "dog.png"]
    listed.write_text("".join(f"{pictures / name}\n" for name in names))
    written = []
    for devices in (1, 4):
        figures = tmp_path / str(devices)
        search = ("--max_length", "3", "--attention_dir", figures)
        rows = run(captioner, listed, *search, "--devices", devices)
        assert rows.endswith("1 of 4 inputs could not be used; see the rows marked with an error.")
        written.append((rows, {path.name: path.read_bytes() for path in figures.iterdir()}))
    assert written[0] == written[1]
    assert written[0][1].keys() == {"dog.png", "dog_2.png", "dog_3.png"}


def test_videos_are_followed_frame_by_frame(run, tmp_path):
    (tmp_path / "videos").mkdir()
    videos = toy_classifier.write_videos(tmp_path / "videos")
    checkpoint = toy_classifier.save_classifier(tmp_path)
    options = (checkpoint, videos, "--per_frame", "--format", "csv")
    together = run(*options, "--devices", "2")
    assert together == run(*options)
    assert together.count("\n") > 3 * toy_classifier.FRAMES


# Going on.


def stop_after(monkeypatch, parts):
    """Let a run fail in its ``parts``-th part; each but that one is written."""
    whole, count = predict.PredictionRun.rows, iter(range(parts))

    def rows(self, *arguments):
        if next(count, None) is None:
            raise ProcessError("killed.")
        return whole(self, *arguments)

    monkeypatch.setattr(predict.PredictionRun, "rows", rows)


@pytest.fixture
def interrupted(run, sentiment, source, monkeypatch):
    """Return what goes on with a run of two processes whose second is killed in its first part."""
    expected = run(sentiment, source, name="one.txt")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(ProcessError, match=r"killed\. 2 finished parts are kept in .*\.parts"):
            run(sentiment, source, "--devices", "2")
    assert not source.with_name("out.txt").exists()

    def go_on(*options, given=source):
        return run(sentiment, given, "--resume", *options), expected

    return go_on


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_finished_parts_are_taken_up(interrupted, monkeypatch, devices, source):
    numbers = []
    write = predict.PredictionRun.rows
    monkeypatch.setattr(
        predict.PredictionRun,
        "rows",
        lambda self, items, first, *others: (
            numbers.append(first) or write(self, items, first, *others)
        ),
    )
    written, expected = interrupted("--devices", devices)
    assert written == expected
    assert numbers == [16]
    assert not source.with_name("out.txt.parts").exists()


def test_a_run_does_not_go_on_unasked(interrupted, run, sentiment, source):
    with pytest.raises(ConfigError, match=r"out\.txt\.parts: holds parts of a run .*Add --resume"):
        run(sentiment, source, "--devices", "2")
    assert len(set(interrupted("--devices", "2"))) == 1


def test_a_run_does_not_go_on_with_other_options(interrupted, sentiment):
    before = sentiment.stat()
    with pytest.raises(ConfigError, match=r"--format was 'text', and is 'csv'\.") as error:
        interrupted("--format", "csv", "--precision", "bf16")
    assert "--precision was '32', and is 'bf16'" in str(error.value)
    os.utime(sentiment, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    with pytest.raises(ConfigError, match=r"--ckpt_path was '.*\(\d+ bytes, 20.*\)', and is"):
        interrupted()
    os.utime(sentiment, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(set(interrupted())) == 1


@pytest.mark.parametrize("change", [(0, "other"), (35, "other"), (37, "more")])
def test_a_run_does_not_go_on_with_other_inputs(interrupted, source, change):
    lines = [*LINES, ""]
    place, lines[place] = change
    source.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"000\d+\.json: was made of other inputs than those from"):
        interrupted()


def test_inputs_of_no_finished_part_may_change(interrupted, run, sentiment, source):
    source.write_text("\n".join([*LINES[:20], "white black", *LINES[21:]]) + "\n")
    written, _ = interrupted()
    assert written == run(sentiment, source, name="one.txt")


def test_a_damaged_part_is_named(interrupted, source):
    part = source.with_name("out.txt.parts") / "000000.json"
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(DataError, match=r"000000\.json: is damaged\. Delete .*000000\.json, and"):
        interrupted()
    part.unlink()
    assert len(set(interrupted())) == 1


def test_resume_begins_where_there_is_nothing_to_go_on_with(run, in_turn, sentiment, source):
    assert run(sentiment, source, "--resume") == run(sentiment, source, name="one.txt")
    assert in_turn == [0]


def test_the_output_is_left_alone_until_all_is_there(run, sentiment, source, monkeypatch):
    output = source.with_name("out.txt")
    output.write_text("before")
    stop_after(monkeypatch, 0)
    with pytest.raises(ProcessError, match=r"^killed\.$"):
        run(sentiment, source, "--devices", "2")
    assert output.read_text() == "before"
    assert not source.with_name("out.txt.parts").exists()  # there is nothing in it to go on with


# What cannot work.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--devices", "0"], r"--devices 0 must be at least 1"),
        (["--devices", "2", "--output", "-"], r"--devices 2: the output is .* Set --output to a f"),
        (["--resume", "--output", "-"], r"--resume: the output is .* Set --output to a file"),
        (["--devices", "2", "--output", "/dev/null"], r"--devices 2: .* Set --output to a file"),
        (["--devices", "2", "--output", "in.txt"], r"--output would overwrite --input"),
        (["--devices", "2", "--input", "pipe"], r"--input pipe is neither a file nor a folder"),
        (["--devices", "2", "--output", "no/o"], r"no/o\.parts: cannot be made: No such file"),
    ],
)
def test_what_cannot_work_is_refused_before_any_process(
    run, in_turn, sentiment, source, monkeypatch, options, message
):
    monkeypatch.chdir(source.parent)
    os.mkfifo("pipe")
    with pytest.raises((ConfigError, DataError), match=message):
        run(sentiment, "in.txt", *options)
    assert in_turn == []
    assert source.read_text().count("\n") == len(LINES)


def test_there_are_as_many_gpus_as_devices(run, in_turn, sentiment, source, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"--devices 2: the visible GPUs are 1\. Set --devices"):
        run(sentiment, source, "--device", "cuda", "--devices", "2")
    assert in_turn == []


def test_an_input_that_is_not_there_is_named(run, sentiment, tmp_path):
    (tmp_path / "out.txt").write_text("before")
    with pytest.raises(DataError, match=r"none\.txt: cannot be read: No such file"):
        run(sentiment, tmp_path / "none.txt", "--devices", "2")
    assert (tmp_path / "out.txt").read_text() == "before"


def test_what_a_checkpoint_cannot_do_is_refused(run, captioner, pictures, tmp_path):
    with pytest.raises(ConfigError, match=r"--per_frame is for videos, and this checkpoint reads"):
        run(captioner, pictures, "--per_frame", "--devices", "2")
    assert not (tmp_path / "out.txt").exists()
