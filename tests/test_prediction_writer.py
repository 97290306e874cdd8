"""What ``seq2seq predict`` writes, keeps and takes up, in one process."""

import os
import shutil
import signal
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_captions
import toy_clips
import toy_reviews
import toy_translation
from conftest import trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from datamodules.synthetic import DatesDataModule
from seq2seq.errors import ConfigError, DataError
from seq2seq.pictures import PictureGeometry
from seq2seq.prediction_folder import Row, RowFolder, write_row
from seq2seq.prediction_writer import PredictionWriter
from seq2seq.tasks.translation import Translator

INPUTS = 11


class Recorder(Callback):
    """Notes which inputs are decoded; does something once it has seen some batches."""

    def __init__(self, batches=None, action=None):
        self.places, self.batches, self.action = [], batches, action

    def on_predict_batch_start(self, trainer, task, batch, batch_idx):  # noqa: ARG002
        if batch_idx == self.batches:
            self.action()
        self.places += batch.indices.tolist()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    sizes = {"train": (29, 1), "val": (3, 2), "test": (3, 3), "new": (INPUTS, 4), "few": (5, 4)}
    for split, (count, seed) in sizes.items():
        toy_translation.write(root, split, toy_translation.sentences(count, seed))
    return root


@pytest.fixture
def predict(root, tmp_path):
    """Return what predicts into ``out.txt``, and returns which inputs it decoded."""

    def predict(*, resume=False, batch=2, recorder=None, split="new", path="out.txt", at=root):
        torch.manual_seed(2)
        recorder = recorder or Recorder()
        data = toy_translation.module(at, predict=split, eval_batch_size=batch)
        task = Translator(40, embedding_size=6, hidden_size=7)
        for parameter in task.parameters():
            torch.nn.init.normal_(parameter)  # so that it tells sentences apart
        # The recorder comes first: what it raises is before anything of the batch is kept.
        callbacks = [recorder, PredictionWriter(path and str(tmp_path / path), resume)]
        trainer(tmp_path, callbacks=callbacks).predict(task, data, return_predictions=False)
        return recorder.places

    return predict


@pytest.fixture
def expected(predict, tmp_path):
    """Return what a run that is not interrupted writes."""
    assert predict() == list(range(INPUTS))
    whole = (tmp_path / "out.txt").read_text()
    assert len({*whole.splitlines()}) == whole.count("\n") == INPUTS
    (tmp_path / "out.txt").unlink()
    return whole


def fail():
    raise ZeroDivisionError


@pytest.fixture
def parts(expected, predict, tmp_path):
    """Return the folder of a run that failed in its third batch."""
    del expected
    with pytest.raises(ZeroDivisionError):
        predict(recorder=Recorder(2, fail))
    assert not (tmp_path / "out.txt").exists()
    return tmp_path / "out.txt.parts"


# Writing.


def test_predictions_are_written_in_the_order_of_the_input(
    make_dates, trained, predictor, make_trainer, tmp_path, capsys
):
    lines = ["Sunday, 30 September 1990", "7.11.1987", "the 3rd of May, 2021", "1999/12/31"] * 3
    data = make_dates(eval_batch_size=5)
    assert isinstance(data, DatesDataModule)
    text = Path(data.root) / "wanted.text"
    text.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    data.splits["predict"] = "wanted"
    output = tmp_path / "deep" / "out.txt"
    make_trainer(callbacks=[PredictionWriter(str(output))]).predict(trained, data)
    assert output.read_text() == "".join(f"{line}\n" for line in predictor.predict(lines))
    assert f"12 predictions written to {output}" in capsys.readouterr().out
    assert [path.name for path in output.parent.iterdir()] == ["out.txt"]


def test_without_a_path_they_are_in_the_folder_of_the_run(expected, predict, tmp_path):
    with pytest.raises(ZeroDivisionError):
        predict(path=None, recorder=Recorder(2, fail))
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.txt.parts"]
    assert predict(path=None, resume=True) == list(range(4, INPUTS))
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.txt"]
    assert (tmp_path / "predictions.txt").read_text() == expected


@pytest.mark.parametrize("content", ["old", None])
def test_a_link_stays_and_what_it_leads_to_is_written(expected, predict, tmp_path, content):
    target, link = tmp_path / "far" / "real.txt", tmp_path / "out.txt"
    link.symlink_to(target)
    if content is not None:
        target.parent.mkdir()
        target.write_text(content)
    with pytest.raises(ZeroDivisionError):
        predict(recorder=Recorder(2, fail))
    assert predict(resume=True) == list(range(4, INPUTS))
    assert link.is_symlink()
    assert target.read_text() == expected
    assert [path.name for path in target.parent.iterdir()] == ["real.txt"]


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("file/out.txt", DataError, r"file: cannot be made: File exists"),
        ("file/deep/out.txt", DataError, r"file/deep: cannot be made: Not a directory"),
        ("folder", ConfigError, r"--predictions\.path .*folder is a folder: give it a file's name"),
        ("pipe", ConfigError, r"--predictions\.path .*pipe is not a file: .* Set it to a file"),
    ],
)
def test_where_nothing_can_be_written_nothing_is_decoded(predict, tmp_path, path, error, message):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    recorder = Recorder()
    with pytest.raises(error, match=message):
        predict(path=path, recorder=recorder)
    assert recorder.places == []
    assert {each.name for each in tmp_path.iterdir()} == {"file", "folder", "pipe"}
    assert (tmp_path / "pipe").is_fifo()


# Going on.


@pytest.mark.parametrize("batch", [2, 3])
def test_what_is_finished_is_not_decoded_again(expected, predict, parts, tmp_path, batch, capsys):
    assert predict(resume=True, batch=batch) == list(range(4, INPUTS))
    assert "4 finished predictions are taken from" in capsys.readouterr().out
    assert (tmp_path / "out.txt").read_text() == expected
    assert not parts.exists()


def test_a_run_may_be_interrupted_again_and_again(expected, predict, parts, tmp_path):
    for first in (4, 6):
        recorder = Recorder(1, fail)
        with pytest.raises(ZeroDivisionError):
            predict(resume=True, recorder=recorder)
        assert recorder.places == [first, first + 1]
    assert len([*parts.glob("*.jsonl")]) == 3
    assert predict(resume=True) == list(range(8, INPUTS))
    assert (tmp_path / "out.txt").read_text() == expected


def test_a_row_that_was_killed_while_it_was_written_is_decoded_again(
    expected, predict, parts, tmp_path
):
    [rows] = parts.glob("*.jsonl")
    rows.write_bytes(rows.read_bytes()[:-1])  # whole, as it seems, but for the end of the line
    assert predict(resume=True) == list(range(3, INPUTS))
    assert (tmp_path / "out.txt").read_text() == expected


# Lightning has no other word for it.
@pytest.mark.filterwarnings("ignore:Total length of .* is zero")
def test_a_run_that_was_killed_at_its_end_has_nothing_left_to_decode(
    expected, predict, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(RowFolder, "finish", lambda *_: fail())
        with pytest.raises(ZeroDivisionError):
            predict()
    assert predict(resume=True) == []
    assert (tmp_path / "out.txt").read_text() == expected


def test_where_nothing_is_left_of_a_run_resuming_begins(expected, predict, tmp_path):
    assert predict(resume=True) == list(range(INPUTS))
    assert (tmp_path / "out.txt").read_text() == expected


def test_where_nothing_was_finished_nothing_is_left(predict, tmp_path):
    with pytest.raises(ZeroDivisionError):
        predict(recorder=Recorder(0, fail))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_run_that_is_told_to_end_keeps_the_batch_it_is_at(expected, predict, tmp_path, number):
    before = signal.getsignal(number)
    recorder = Recorder(1, lambda: os.kill(os.getpid(), number))
    with pytest.raises(SIGTERMException):
        predict(recorder=recorder)
    assert recorder.places == [0, 1, 2, 3]
    assert signal.getsignal(number) == before
    assert predict(resume=True) == list(range(4, INPUTS))
    assert (tmp_path / "out.txt").read_text() == expected


def test_a_run_that_is_told_to_end_while_it_writes_the_file_has_written_it(
    expected, predict, tmp_path, monkeypatch
):
    before = signal.getsignal(signal.SIGTERM)
    finish = RowFolder.finish

    def tell_and_finish(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        finish(*given)

    monkeypatch.setattr(RowFolder, "finish", tell_and_finish)
    predict()
    assert (tmp_path / "out.txt").read_text() == expected
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("modality", ["text", "pictures", "videos", "reviews"])
def test_every_kind_of_data_leaves_out_what_is_finished(modality, root, tmp_path):
    match modality:
        case "text":
            data = toy_translation.prepared(root, predict="few", eval_batch_size=2)
        case "pictures":
            pictures = toy_captions.write_corpus(tmp_path)
            data = toy_captions.prepared(pictures, predict=str(tmp_path / "images"))
            data.show_to(PictureGeometry(16, "squash"), None)
        case "videos":
            videos = toy_clips.write_corpus(tmp_path / "videos")
            data = toy_clips.shown(videos, predict=str(videos.parent))
        case "reviews":
            reviews = toy_reviews.write_splits(tmp_path)
            (tmp_path / "new.txt").write_text("dull\n" * 7)
            data = toy_reviews.prepared(
                reviews, predict=str(tmp_path / "new.txt"), eval_batch_size=2
            )
    places = [batch.indices.tolist() for batch in data.predict_dataloader()]
    count = sum(map(len, places))
    assert places[:2] == [[0, 1], [2, 3]]
    assert len(data.prediction_files()) == (1 if modality in ("text", "reviews") else count)
    data.predicted = np.array([3, 0])
    places = [batch.indices.tolist() for batch in data.predict_dataloader()]
    assert places[0] == [1, 2]
    assert [*chain(*places)] == [1, 2, *range(4, count)]


# What cannot be gone on with.


def test_parts_are_not_taken_up_unasked(predict, parts):
    recorder = Recorder()
    with pytest.raises(
        ConfigError, match=r"out\.txt\.parts: holds parts of a .*Add --predictions\.resume true"
    ):
        predict(recorder=recorder)
    assert recorder.places == []
    assert parts.exists()


def test_inputs_that_have_changed_are_refused(expected, predict, root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy", ignore=shutil.ignore_patterns(".*"))
    with pytest.raises(ZeroDivisionError):
        predict(at=copy, recorder=Recorder(4, fail))
    lines = (copy / "new.en").read_text().splitlines()
    (copy / "new.en").write_text("".join(f"{line}\n" for line in [*lines[::-1], "one more"]))
    recorder = Recorder()
    with pytest.raises(ConfigError, match=r"--data\.predict was '.*new\.en \((.|\n)*Give what was"):
        predict(at=copy, resume=True, recorder=recorder)
    assert recorder.places == []
    shutil.copy2(root / "new.en", copy)  # with its time
    assert predict(at=copy, resume=True) == list(range(8, INPUTS))
    assert (tmp_path / "out.txt").read_text() == expected


def test_places_that_there_are_no_inputs_for_are_refused(root):
    data = toy_translation.prepared(root, predict="few")
    data.predicted = np.array([7, 0])
    with pytest.raises(DataError, match=r"Of the 5 inputs, number 8 is finished: there were more"):
        data.predict_dataloader()


@pytest.mark.parametrize("line", ["\0\0\n", '{"place": 1}\n', "[]\n"])
def test_a_damaged_file_is_named(predict, parts, line):
    [rows] = parts.glob("*.jsonl")
    rows.write_text(line + rows.read_text())
    with pytest.raises(DataError, match=rf"{rows.name}: is damaged\. Delete .*{rows.name}, and"):
        predict(resume=True)
    rows.unlink()
    assert predict(resume=True) == list(range(INPUTS))


def test_loaders_of_others_cannot_leave_anything_out(root, tmp_path):
    folder = RowFolder(tmp_path / "out.txt")
    folder.begin({}, (), is_resumed=False)
    with folder.add(0) as file:
        write_row(file, Row(0, "nothing"))
    data = toy_translation.prepared(root, predict="new")
    writer = PredictionWriter(str(tmp_path / "out.txt"), resume=True)
    task = Translator(40, embedding_size=6, hidden_size=7)
    with pytest.raises(ConfigError, match=r"only the data modules of this project"):
        trainer(tmp_path, callbacks=[writer]).predict(task, data.predict_dataloader())
