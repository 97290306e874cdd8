"""``seq2seq predict`` where some videos or pictures cannot be read."""

import os
import shutil

import pytest
import torch
import toy_captioner
import toy_captions
import toy_classifier
import toy_clips
from conftest import trainer

import seq2seq
from seq2seq.errors import DataError
from seq2seq.prediction_writer import PredictionWriter


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Return a folder of videos; it must be left as it is."""
    return toy_classifier.write_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture
def good(videos, tmp_path):
    good = shutil.copytree(videos, tmp_path / "good")
    for name in toy_classifier.BAD:
        (good / name).unlink()
    return good


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a classifier, and what it has learned from."""
    folder = tmp_path_factory.mktemp("trained")
    source = toy_clips.write_corpus(folder / "corpus")
    task = toy_classifier.classifier()
    data = toy_clips.module(source)
    toy_classifier.fit(lambda **options: trainer(folder, **options), task, data, steps=1)
    return task, source


@pytest.fixture
def classify(trained, tmp_path):
    """Return what classifies files, and returns predictions and lines."""
    task, source = trained

    def classify(predict, **options):
        data = toy_clips.module(source, predict=str(predict), **options)
        return outputs(tmp_path, task, data)

    return classify


def outputs(folder, task, data):
    writer = PredictionWriter(str(folder / "out.txt"))
    batches = trainer(folder, callbacks=[writer]).predict(task, data)
    lines = (folder / "out.txt").read_text(encoding="utf-8").split("\n")
    return [best for batch in batches for best, *_ in batch], lines[:-1]


def quarantined(classify, predict, **options):
    return classify(predict, on_bad_video="quarantine", **options)


@pytest.mark.parametrize(("num_workers", "size"), [(0, 1), (1, 4)])
def test_a_bad_video_has_a_line_that_says_why_and_the_others_are_as_without_it(
    classify, videos, good, caplog, num_workers, size
):
    found, lines = quarantined(classify, videos, num_workers=num_workers, eval_batch_size=size)
    named = dict(zip(toy_classifier.ALL, zip(found, lines, strict=True), strict=True))
    for name in toy_classifier.BAD:
        best, line = named.pop(name)
        assert best.error.startswith(f"{videos / name}: ")
        assert line == f"[error: {best.error}]"
        assert caplog.messages.count(f"No prediction: {best.error}") == 1
    assert sum("No prediction" in message for message in caplog.messages) == 2
    for (best, line), one, text in zip(named.values(), *classify(good), strict=True):
        assert (best.error, line, best.text) == (None, text, text)
        torch.testing.assert_close(best.probabilities, one.probabilities)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_policy_error_stops_at_the_first(classify, videos, num_workers):
    with pytest.raises(DataError, match=r"e\.mp4: "):
        classify(videos, num_workers=num_workers)


def test_a_video_that_does_not_exist_is_an_error_in_any_case(classify, tmp_path):
    with pytest.raises(DataError, match=r"absent\.mkv: does not exist\. Set --data\.predict"):
        quarantined(classify, tmp_path / "absent.mkv")


def test_a_line_stays_one_whatever_the_name_of_the_file(classify, tmp_path):
    (tmp_path / "new").mkdir()
    for name in (b"a\n\rb.mp4", b"caf\xe9.mp4"):
        path = os.path.join(os.fsencode(tmp_path / "new"), name)  # noqa: PTH118  # takes bytes
        with open(path, "wb"):  # noqa: PTH123  # as above
            pass
    _, lines = quarantined(classify, tmp_path / "new")
    assert len(lines) == 2
    assert lines[0].startswith(f"[error: {tmp_path}/new/a  b.mp4: ")
    assert lines[1].startswith(f"[error: {tmp_path}/new/caf\\udce9.mp4: ")


def test_pictures_are_treated_as_videos_are(tmp_path):
    pictures = toy_captioner.write_pictures(tmp_path / "pictures")
    root = toy_captions.write_corpus(tmp_path / "corpus")
    task = seq2seq.load(toy_captioner.save_captioner(tmp_path), "cpu").task
    options = {"predict": str(pictures), "vocab_size": 17, "vocabulary": "word"}
    with pytest.raises(DataError, match=r"broken\.jpg: cannot be decoded"):
        outputs(tmp_path, task, toy_captions.module(root, **options))
    data = toy_captions.module(root, on_bad_picture="quarantine", **options)
    found, lines = outputs(tmp_path, task, data)
    names = sorted([*toy_captioner.GOOD, *toy_captioner.BAD])
    assert [best.error is not None for best in found] == [n in toy_captioner.BAD for n in names]
    for name, best, line in zip(names, found, lines, strict=True):
        is_bad = name in toy_captioner.BAD
        assert line == (f"[error: {best.error}]" if is_bad else best.text)
        assert not is_bad or best.error.startswith(f"{pictures / name}: ")
