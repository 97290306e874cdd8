import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_clips import CLASSES, ROWS, SIZE, module, of_split, write_corpus

import seq2seq.confusion
from seq2seq.confusion import ConfusionLogger, write_classes
from seq2seq.tasks.video import VideoClassifier

FILES = ("confusion_test.png", "confusion_val.png")


def classifier():
    torch.manual_seed(1)
    sizes = {"image_size": SIZE, "image_channels": 1, "clip_frames": 3, "hidden_size": 5}
    return VideoClassifier(
        len(CLASSES), frame_widths=[8], memory_size=9, decoder_size=7, sampling="uniform", **sizes
    )


@pytest.fixture
def drawn(monkeypatch):
    """Return the matrices, names and titles that were drawn."""
    calls, draw = [], seq2seq.confusion.confusion_figure

    def noted(*arguments):
        calls.append(arguments)
        return draw(*arguments)

    monkeypatch.setattr(seq2seq.confusion, "confusion_figure", noted)
    return calls


@pytest.fixture
def data(tmp_path):
    return module(write_corpus(tmp_path / "corpus"))


@pytest.fixture
def logger(tmp_path):
    return TensorBoardLogger(tmp_path / "logs", name=None, version="")


def logged_images(logger):
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir).Reload()
    return {name: [each.step for each in events.Images(name)] for name in events.Tags()["images"]}


def written(folder):
    return [path.name for path in sorted(folder.glob("*.png"))]


def test_every_validation_and_test_is_drawn(make_trainer, data, logger, drawn, tmp_path):
    task = classifier()
    fitting = make_trainer(
        max_steps=4,
        max_epochs=-1,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        logger=logger,
        log_every_n_steps=1,
        callbacks=[ConfusionLogger()],
    )
    fitting.fit(task, data)
    assert written(tmp_path) == ["confusion_val.png"]
    fitting.test(task, data, verbose=False)
    assert written(tmp_path) == list(FILES)
    assert logged_images(logger) == {"val/confusion": [2, 4], "test/confusion": [4]}
    assert [title for _, _, title in drawn] == ["val, step 2", "val, step 4", "test, step 4"]
    for (confusion, names, _), split in zip(drawn, ("val", "val", "test"), strict=True):
        assert names == list(CLASSES)
        labels = [ROWS[number][1] for number in of_split(split)]
        assert confusion.sum(dim=1).tolist() == [labels.count(name) for name in CLASSES]
    for name in FILES:
        with Image.open(tmp_path / name) as figure:
            assert min(figure.size) > 200


def rows_of(file):
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_numbers_of_each_class_are_written_beside_it(make_trainer, data, drawn, tmp_path):
    task, trainer = classifier(), make_trainer(callbacks=[ConfusionLogger()])
    trainer.validate(task, data, verbose=False)
    trainer.test(task, data, verbose=False)
    for (confusion, *_), split in zip(drawn, ("val", "test"), strict=True):
        rows = rows_of(tmp_path / f"classes_{split}.csv")
        assert [row["class"] for row in rows] == list(CLASSES)
        assert [int(row["examples"]) for row in rows] == confusion.sum(dim=1).tolist()
        assert [int(row["correct"]) for row in rows] == confusion.diag().tolist()


def test_a_class_is_told_with_what_it_is_most_often_taken_for(tmp_path):
    confusion = torch.tensor([[5, 1, 3, 3], [0, 4, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]])
    write_classes(tmp_path / "classes.csv", confusion, ["a, b", "bow", "\u624b", "none"])
    assert [list(row.values()) for row in rows_of(tmp_path / "classes.csv")] == [
        ["a, b", "12", "5", "0.4167", "\u624b", "3"],
        ["bow", "4", "4", "1.0000", "", ""],
        ["\u624b", "2", "0", "0.0000", "bow", "2"],
        ["none", "0", "0", "", "", ""],
    ]


def test_without_tensorboard_the_file_is_there_all_the_same(make_trainer, data, tmp_path):
    make_trainer(callbacks=[ConfusionLogger()]).validate(classifier(), data, verbose=False)
    assert written(tmp_path) == ["confusion_val.png"]


class Watch(Callback):
    """Notes what is written when training begins."""

    def on_train_start(self, trainer, pl_module):  # noqa: ARG002  # as Lightning has it
        self.found = written(Path(trainer.default_root_dir))


def test_what_was_only_tried_out_is_not_drawn(make_trainer, data, tmp_path):
    watch = Watch()
    checking = make_trainer(
        callbacks=[ConfusionLogger(), watch], num_sanity_val_steps=1, max_epochs=1
    )
    checking.fit(classifier(), data)
    assert watch.found == []
    assert written(tmp_path) == ["confusion_val.png"]


def test_letters_that_the_font_lacks_stop_nothing(make_trainer, tmp_path):
    source = write_corpus(tmp_path / "corpus")
    source.write_text(source.read_text().replace("wave", "\u624b\u3092\u632f\u308b"))
    make_trainer(callbacks=[ConfusionLogger()]).validate(
        classifier(), module(source), verbose=False
    )
    assert written(tmp_path) == ["confusion_val.png"]


def test_a_task_without_labels_has_none(make_trainer, make_dates, make_translator, tmp_path):
    checking = make_trainer(callbacks=[ConfusionLogger()], limit_val_batches=1)
    checking.validate(make_translator(), make_dates(), verbose=False)
    assert written(tmp_path) == []
