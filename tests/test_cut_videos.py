"""Videos whose broken tail is cut off: what is said of them in training, caching and checking."""

import csv
import logging
import pickle
import re
from pathlib import Path

import pytest
from toy_clips import RATE_HZ, module, shown, write_array
from toy_shards import write
from toy_videos import cut_off, write_video

from datamodules.base import Reading
from datamodules.check import CutOff, Finding, read_all, write_report
from seq2seq.check_data import run
from seq2seq.videos.frames import CutWarnings


@pytest.fixture
def source(tmp_path):
    """Return a table of two classes; each has a whole video, and one has a broken one."""
    cut_off(write_video(tmp_path / "cut.mkv", "ffv1", count=20, size=(96, 64)), 0.6)
    write_array(tmp_path / "one.npy", 0)
    write_array(tmp_path / "two.npy", 1)
    (tmp_path / "videos.csv").write_text("path,label\ncut.mkv,a\none.npy,a\ntwo.npy,b\n")
    return tmp_path / "videos.csv"


def warned(caplog, epochs=1, **options):
    """Return what was warned of while the training clips were read."""
    with caplog.at_level(logging.WARNING):
        loader = shown(num_classes=2, broken_tail="cut", **options).train_dataloader()
        for epoch in range(epochs):
            loader.set_epoch(epoch)
            list(loader)
    return [record.getMessage() for record in caplog.records]


def test_training_warns_once_of_each_cut_video_whatever_the_epochs(source, caplog):
    path = re.escape(str(source.parent / "cut.mkv"))
    [message] = warned(caplog, epochs=3, source=source)
    assert re.fullmatch(rf"{path}: breaks off at 1\.\d\d s; only the part before .*", message)


def test_warnings_go_into_workers(caplog):
    warn = pickle.loads(pickle.dumps(CutWarnings()))
    for name in ("a", "b", "a"):
        warn(Path(name), 0.4)
    assert [record.getMessage()[:21] for record in caplog.records] == [
        "a: breaks off at 0.40",
        "b: breaks off at 0.40",
    ]


def test_a_video_that_is_cut_off_is_neither_sound_nor_bad(tmp_path):
    readings = [Reading("a.mkv", lambda: CutOff(0.4)), Reading("b.mkv", lambda: None)]
    found = read_all(readings)
    assert found == [Finding("a.mkv", "cut at 0.40 s", is_cut=True), Finding("b.mkv", None)]
    write_report(tmp_path / "report.csv", found)
    with (tmp_path / "report.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    assert rows == [["a.mkv", "cut", "cut at 0.40 s"], ["b.mkv", "ok", ""]]


def test_the_cache_of_frames_warns_when_it_is_written(source, caplog):
    [message] = warned(caplog, epochs=2, source=source, cache_frames=True)
    assert "cut.mkv: breaks off at 1." in message


def test_videos_in_shards_are_named_as_errors_name_them(source, tmp_path, caplog):
    write(module(source, num_classes=2, broken_tail="cut"), tmp_path / "shards")
    [told_when_written] = [record.getMessage() for record in caplog.records]
    assert "cut.mkv: breaks off at 1." in told_when_written
    caplog.clear()
    [message] = warned(caplog, epochs=2, source=tmp_path / "shards", format="shards")
    assert re.match(r"train/\d+/cut\.mkv: breaks off at 1\.", message)


@pytest.mark.parametrize("broken_tail", ["cut", "error"])
def test_a_check_tells_cut_videos_from_bad_ones(source, tmp_path, capsys, broken_tail):
    options = {"source": source, "num_classes": 2, "stills_rate_hz": RATE_HZ}
    options |= {"broken_tail": broken_tail}
    arguments = [f"--data.{name}={value}" for name, value in options.items()]
    report = tmp_path / "report.csv"
    is_usable = run(["--data=VideoDataModule", *arguments, f"--report={report}"])
    with report.open(newline="") as file:
        rows = {Path(name).name: (status, problem) for name, status, problem in csv.reader(file)}
    status, problem = rows["cut.mkv"]
    printed = capsys.readouterr().out
    assert rows["one.npy"] == ("ok", "")
    assert is_usable == (broken_tail == "cut")
    if is_usable:
        assert status == "cut"
        assert re.fullmatch(r"cut at 1\.\d\d s", problem)
        assert printed.startswith("3 files read, 0 bad, 1 cut; ")
    else:
        assert (status, problem[:12]) == ("bad", "broken from ")
        assert printed.startswith("3 files read, 1 bad; ")
    assert f"  - {source.parent}/cut.mkv: {problem}" in printed
