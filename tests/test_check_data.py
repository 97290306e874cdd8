import csv
import threading

import pytest
import yaml
from toy_captions import write_corpus as write_captioned
from toy_clips import FRAMES, RATE_HZ, of_split, write_array, write_corpus
from toy_videos import cut_off, write_video

from datamodules.base import Reading, SequenceDataModule
from datamodules.check import Finding, read_all
from seq2seq.check_data import main, run
from seq2seq.errors import ConfigError, DataError


def report(path):
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "status", "problem"]
    return {name: (status, problem) for name, status, problem in rows[1:]}


def check(folder, kind, *arguments, **options):
    """Write a configuration, check its data, and return the verdict and the report."""
    config = {"data": {"class_path": kind, "init_args": options}, "run_dir": str(folder / "run")}
    config["model"] = {"class_path": "Translator", "init_args": {"hidden_size": 8}}
    config["trainer"] = {"max_epochs": 3}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"seed_everything": 1, **config}))
    is_sound = run(["--config", str(folder / "recipe.yaml"), *arguments])
    return is_sound, report(folder / "run" / "data_report.csv")


# Videos.


def check_videos(folder, **options):
    options = {"num_classes": 3, "stills_rate_hz": RATE_HZ, **options}
    return check(folder, "VideoDataModule", source=str(folder / "videos.csv"), **options)


def test_sound_videos_are_reported_as_such(tmp_path, capsys):
    write_corpus(tmp_path)
    is_sound, found = check_videos(tmp_path)
    assert is_sound
    assert found == {str(path): ("ok", "") for path in tmp_path.glob("v*.npy")}
    where = tmp_path / "run" / "data_report.csv"
    assert capsys.readouterr().out == f"12 files read, 0 bad; {where} lists them all.\n"


def test_every_bad_video_of_every_split_is_named(tmp_path, capsys):
    source = write_corpus(tmp_path)
    test, val = (tmp_path / f"v{of_split(split)[0]}.npy" for split in ("test", "val"))
    test.write_bytes(b"")
    cut = cut_off(write_video(tmp_path / "cut.mkv", "ffv1", count=20, size=(96, 64)), 0.6)
    source.write_text(source.read_text().replace(val.name, cut.name))
    is_sound, found = check_videos(tmp_path)
    assert not is_sound
    assert [status for status, _ in found.values()].count("bad") == 2
    assert found[str(test)][1].startswith("cannot be read as an array")
    assert found[str(cut)][1].startswith("broken from 1.")
    shown = capsys.readouterr().out
    assert shown.startswith("12 files read, 2 bad; ")
    assert f"  - {cut}: broken from 1." in shown
    _, found = check_videos(tmp_path, broken_tail="cut")
    assert found[str(cut)][0] == "cut"


def test_a_part_that_the_video_has_not_is_named(tmp_path):
    write_array(tmp_path / "v0.npy", 0)
    write_array(tmp_path / "v1.npy", 1)
    seconds = FRAMES / RATE_HZ
    rows = ["v0.npy,a,0", f"v0.npy,b,{seconds + 1}", "v1.npy,b,0.3"]
    (tmp_path / "videos.csv").write_text("\n".join(["path,label,start", *rows, ""]))
    _, found = check_videos(tmp_path, num_classes=2)
    assert found[str(tmp_path / "v1.npy")] == ("ok", "")
    assert "the part from 2 s on begins after the end" in found[str(tmp_path / "v0.npy")][1]


# The other data modules.


def test_pictures_are_read(tmp_path):
    root = write_captioned(tmp_path)
    bad = root / "images" / "val" / "1.png"
    bad.write_bytes(bad.read_bytes()[:60])
    options = {"captions": str(root / "captions.csv"), "images": str(root / "images")}
    is_sound, found = check(tmp_path, "CaptionDataModule", **options)
    assert not is_sound
    assert len(found) == 11  # one picture is of no split
    assert [name for name, (status, _) in found.items() if status == "bad"] == [str(bad)]
    assert found[str(bad)][1].startswith("cannot be decoded")


def test_text_is_read(tmp_path):
    for name, lines in {"train": "a\nb\n", "val": "a\n", "test": "a\n"}.items():
        (tmp_path / f"{name}.en").write_text(lines)
        (tmp_path / f"{name}.de").write_text("x\n")
    is_sound, found = check(tmp_path, "TranslationDataModule", root=str(tmp_path))
    assert not is_sound
    names = [
        f"{tmp_path}/{split}.en and {tmp_path}/{split}.de" for split in ("train", "val", "test")
    ]
    assert list(found) == names
    assert [status for status, _ in found.values()] == ["bad", "ok", "ok"]
    assert "train.en has 2 lines" in found[names[0]][1]
    with pytest.raises(DataError, match="does not exist"):
        check(tmp_path, "TranslationDataModule", root=str(tmp_path / "nowhere"))


def test_a_data_module_that_does_not_tell_its_files_is_an_error():
    class Secretive(SequenceDataModule):
        split_loader = None

    with pytest.raises(ConfigError, match=r"Secretive does not say .* Let it have a method iter"):
        Secretive().iter_readings()


# The command.


def test_options_of_the_command_line_count_more_than_the_file(tmp_path):
    write_corpus(tmp_path / "videos")
    options = {"source": str(tmp_path / "nowhere.csv"), "num_classes": 3}
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        check(tmp_path, "VideoDataModule", **options)
    arguments = ["--config", str(tmp_path / "recipe.yaml")]
    arguments += ["--data.source", str(tmp_path / "videos" / "videos.csv")]
    assert run([*arguments, "--report", str(tmp_path / "own.csv")])
    assert len(report(tmp_path / "own.csv")) == 12


def status_of(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["seq2seq-check-data", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def test_the_exit_status_tells_what_was_found(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = write_corpus(tmp_path)
    arguments = ["--data", "VideoDataModule", "--data.source", source, "--data.num_classes", 3]
    assert status_of(monkeypatch, *arguments) == 0
    assert len(report(tmp_path / "data_report.csv")) == 12
    (tmp_path / "v1.npy").write_bytes(b"")
    assert status_of(monkeypatch, *arguments) == 1
    assert status_of(monkeypatch, *arguments[:-1], 5) == 1
    assert "Set --data.num_classes=3." in capsys.readouterr().err
    assert status_of(monkeypatch, *arguments, "--data.batch_size", 0) == 2
    assert "--data.batch_size is 0" in capsys.readouterr().err
    assert status_of(monkeypatch, *arguments, "--data.colour", "red") == 2
    assert "'colour' is not accepted" in capsys.readouterr().err
    assert status_of(monkeypatch) == 2
    assert "nothing to check: give a --config with data" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_an_error(tmp_path):
    write_corpus(tmp_path)
    (tmp_path / "run").write_text("")
    with pytest.raises(DataError, match=r"the report cannot be written .* place with --report"):
        check_videos(tmp_path)


def test_files_are_read_at_the_same_time_and_reported_in_order():
    barrier = threading.Barrier(2, timeout=60)

    def fail():
        barrier.wait()
        raise DataError("first: is bad")

    readings = [Reading("first", fail), Reading("second", barrier.wait)]
    assert read_all(readings) == [Finding("first", "is bad"), Finding("second", None)]


@pytest.mark.parametrize(
    ("name", "problem", "expected"),
    [
        ("s/a.csv", "s/a.csv: is empty.", "is empty."),
        ("s/a.csv", "s/a.csv:7: no number.", "line 7: no number."),
        ("s/a.csv", "s/a.csv has 2 lines.", "has 2 lines."),
        ("s/a.csv (labels)", "s/a.csv: only 'x'.", "only 'x'."),
        ("v (1).npy", "v (1).npy: is empty.", "is empty."),
        ("a.en and a.de", "a.en:7: invalid UTF-8.", "a.en:7: invalid UTF-8."),
        ("s/a.c", "s/a.csv: is empty.", "s/a.csv: is empty."),
        ("s/a.csv", "t/s/a.csv: is empty.", "t/s/a.csv: is empty."),
    ],
)
def test_a_problem_does_not_repeat_the_name(name, problem, expected):
    def fail():
        raise DataError(problem)

    assert read_all([Reading(name, fail)]) == [Finding(name, expected)]
