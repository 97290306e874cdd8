"""``seq2seq-predict`` with a classifier of videos: whole ones, and frame after frame."""

import csv
import io
import json
import logging
import math
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import trainer
from toy_captioner import save_captioner
from toy_classifier import ALL, BAD, FRAMES, GOOD, NAMES, pixels, save_classifier, write_videos
from toy_videos import RATE_HZ, cut_off, write_video

import seq2seq
from seq2seq.errors import ConfigError
from seq2seq.predict import main
from seq2seq.search import SearchOptions
from seq2seq.videos.frames import FrameReader

ROUNDED = 1.1e-5  # two ways to the same number, with five digits each


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def classifier(checkpoint):
    return seq2seq.load(checkpoint, "cpu")


@pytest.fixture(scope="module")
def all_videos(tmp_path_factory):
    return write_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture
def videos(all_videos, tmp_path):
    return shutil.copytree(all_videos, tmp_path / "videos")


@pytest.fixture
def predict(checkpoint, tmp_path, monkeypatch):
    """Return what runs the script in this process; it gives status, output and errors."""

    def run(source, *options, checkpoint=checkpoint):
        output, status = tmp_path / "out.txt", 0
        files = ["--ckpt_path", str(checkpoint), "--output", str(output), "--device", "cpu"]
        arguments = ["seq2seq-predict", *files, "--input", str(source), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        try:
            main()
        except SystemExit as stop:
            status = stop.code
        return status, output.read_text(encoding="utf-8") if output.exists() else ""

    return run


def refused(outcome, *parts):
    status, output = outcome
    assert status.startswith("seq2seq-predict: ")
    for part in parts:
        assert part in status
    assert output == ""


def expected(classifier, path, **options):
    [predictions] = classifier.predict_chunk([str(path)], SearchOptions(**options))
    return predictions


def warned(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def text_row(path, prediction):
    return f"{path}\t{prediction.text}\t{math.exp(prediction.token_log_probs[0]):.4f}\n"


# What can be given as --input.


@pytest.mark.parametrize("name", GOOD)
def test_a_video_has_its_label_and_its_probability(predict, classifier, videos, name):
    [best] = expected(classifier, videos / name)
    assert predict(videos / name) == (0, text_row(videos / name, best))
    assert float(best.probabilities.sum()) == pytest.approx(1)


def test_a_folder_is_read_with_those_below_it_in_order(predict, classifier, videos):
    status, output = predict(videos)
    assert status == (
        "seq2seq-predict: 2 of 6 inputs could not be used; see the rows marked with an error."
    )
    rows = output.splitlines(keepends=True)
    assert [row.split("\t")[0] for row in rows] == [str(videos / name) for name in ALL]
    for name, row in zip(ALL, rows, strict=True):
        if name in BAD:
            assert row.split("\t")[1].startswith("[error: ")
        else:
            assert row == text_row(videos / name, expected(classifier, videos / name)[0])
    probabilities = {row.split("\t")[2] for row in rows if "[error" not in row}
    assert len(probabilities) == len(GOOD)


def test_a_list_may_name_files_and_folders_of_frames(predict, videos, monkeypatch):
    monkeypatch.chdir(videos)
    (videos / "list.txt").write_text("frames\n\nc/d.avi\nnone.mp4\na.mkv\nc\n")
    status, output = predict("list.txt")
    assert "2 of 5 inputs could not be used" in status
    rows = [row.split("\t") for row in output.splitlines()]
    assert [row[0] for row in rows] == ["frames", "c/d.avi", "none.mp4", "a.mkv", "c"]
    assert ["[error" in row[1] for row in rows] == [False, False, True, False, True]
    assert "does not exist" in rows[2][1]
    assert "a folder without pictures is no video" in rows[4][1]


def test_a_broken_tail_is_cut_off(predict, classifier, tmp_path, caplog):
    whole = write_video(tmp_path / "whole.mkv", "ffv1", count=20, size=(96, 64))
    broken = cut_off(shutil.copy(whole, tmp_path / "broken.mkv"), 0.6)
    status, output = predict(broken)
    assert status == 0
    [message] = warned(caplog)
    assert re.fullmatch(rf"{broken}: breaks off at 1\.[0-4]0 s; .*", message)
    [best] = expected(classifier, broken)
    assert output == text_row(broken, best)
    assert not torch.equal(best.probabilities, expected(classifier, whole)[0].probabilities)


def test_a_broken_tail_is_told_once_for_each_file_that_has_one(predict, tmp_path, caplog):
    path = save_classifier(tmp_path, attention="dot")
    folder = tmp_path / "videos"
    folder.mkdir()
    names = ["a.mkv", "b.mkv", "whole.mkv"]
    for name in names:
        write_video(folder / name, "ffv1", count=20, size=(96, 64))
    for name in names[:2]:
        cut_off(folder / name, 0.6)
    figures = str(tmp_path / "figures")
    assert predict(folder, "--attention_dir", figures, checkpoint=path)[0] == 0
    told = sorted(message.partition(": ")[0] for message in warned(caplog))
    assert told == [str(folder / name) for name in names[:2]]


def test_the_batch_size_changes_nothing(classifier, all_videos):
    items = [str(all_videos / name) for name in ALL]
    alone = [expected(classifier, item)[0] for item in items]
    for batch_size in (2, 3, 64):
        found = [best for best, *_ in classifier.stream(items, SearchOptions(), batch_size)]
        assert [best.text for best in found] == [best.text for best in alone]
        assert [best.error for best in found] == [best.error for best in alone]
        for one, other in zip(found, alone, strict=True):
            if one.error is None:
                torch.testing.assert_close(one.probabilities, other.probabilities)


# What is written.


def test_jsonl_has_the_five_most_probable_classes(predict, classifier, videos):
    _, output = predict(videos, "--format", "jsonl")
    records = [json.loads(line) for line in output.splitlines()]
    for name, record in zip(ALL, records, strict=True):
        assert record["source"] == str(videos / name)
        assert ("error" in record) == (name in BAD)
        if name in BAD:
            assert "classes" not in record
            continue
        [best] = expected(classifier, videos / name)
        order = best.probabilities[0].argsort(descending=True)[:5].tolist()
        [step] = record["classes"]
        assert list(step) == [NAMES[number] for number in order]
        shares = best.probabilities[0][order].tolist()
        assert list(step.values()) == pytest.approx(shares, abs=1e-5)
        assert (record["text"], record["tokens"]) == (best.text, [best.text])
        assert step[best.text] == max(step.values())
        assert record["probability"] == pytest.approx(step[best.text], abs=ROUNDED)


def test_csv_has_a_column_for_the_probability(predict, videos):
    _, output = predict(videos, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(output)))
    assert list(rows[0]) == ["source", "text", "probability", "score", "error"]
    for name, row in zip(ALL, rows, strict=True):
        assert bool(row["error"]) == (name in BAD)
        assert bool(row["text"]) == bool(row["probability"]) == bool(row["score"]) == (name in GOOD)
        if name in GOOD:
            assert math.log(float(row["probability"])) == pytest.approx(
                float(row["score"]), abs=1e-3
            )


def test_no_more_labels_are_listed_than_there_are(predict, videos):
    options = ("--n_best", "11", "--beam_size", "12")
    _, output = predict(videos / "a.mkv", *options)
    [_, *cells] = output.rstrip("\n").split("\t")
    labels, shares = cells[::2], [float(share) for share in cells[1::2]]
    assert sorted(labels) == list(NAMES)
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    _, output = predict(videos / "a.mkv", *options, "--format", "csv")
    ranks = [row["rank"] for row in csv.DictReader(io.StringIO(output))]
    assert ranks == [str(rank) for rank in range(1, len(NAMES) + 1)]
    _, output = predict(videos / "a.mkv", *options, "--format", "jsonl")
    assert [each["text"] for each in json.loads(output)["n_best"]] == labels


# After each frame.


def all_frames_of(classifier, path):
    """Return what the classifier makes of the first frame, the first two, ..."""
    reader = FrameReader(classifier.task.preparation, RATE_HZ)
    with reader.open(path) as video:
        prepare = reader.preparation_of(video)
        frames = [prepare(frame.pixels) for frame in video.iter_frames()]
    found = []
    for count in range(1, len(frames) + 1):
        batch = classifier.task.collate([torch.stack(frames[:count]).unsqueeze(0)])
        found += classifier.task.predict_batch(batch, SearchOptions())
    return [best for [best] in found]


def test_a_stream_looks_where_the_foreground_of_the_first_frame_is(predict, tmp_path):
    checkpoint = save_classifier(tmp_path, image_resize="foreground")
    frames = pixels(5)
    frames[:, :, :20] = frames[:, :10] = 0
    frames[6:, :25] = 0
    np.save(tmp_path / "black.npy", frames)
    _, output = predict(tmp_path / "black.npy", "--per_frame", checkpoint=checkpoint)
    shares = [float(row.split("\t")[3]) for row in output.splitlines()]
    followed = all_frames_of(seq2seq.load(checkpoint, "cpu"), tmp_path / "black.npy")
    assert shares == pytest.approx([math.exp(best.score) for best in followed], abs=1e-4)


@pytest.mark.parametrize("name", GOOD)
def test_each_frame_has_its_time_and_what_was_seen_until_then(predict, classifier, videos, name):
    path = videos / name
    status, output = predict(path, "--per_frame")
    assert status == 0
    rows = [row.split("\t") for row in output.splitlines()]
    assert [row[:2] for row in rows] == [[str(path), f"{n / RATE_HZ:.3f}"] for n in range(FRAMES)]
    shares = [math.exp(best.score) for best in all_frames_of(classifier, path)]
    assert [float(row[3]) for row in rows] == pytest.approx(shares, abs=1e-4)
    assert [row[2] for row in rows] == [best.text for best in all_frames_of(classifier, path)]
    [best] = expected(classifier, path)  # the clip is the whole video
    assert rows[-1] == [str(path), "1.100", *text_row(path, best).split()[1:]]


def test_rows_of_frames_in_jsonl_and_csv(predict, videos):
    status, output = predict(videos, "--per_frame", "--format", "csv")
    assert "2 of 6 inputs could not be used" in status
    rows = list(csv.DictReader(io.StringIO(output)))
    assert list(rows[0]) == ["source", "seconds", "text", "probability", "score", "error"]
    assert len(rows) == len(GOOD) * FRAMES + len(BAD)
    _, output = predict(videos, "--per_frame", "--format", "jsonl")
    records = [json.loads(line) for line in output.splitlines()]
    for row, record in zip(rows, records, strict=True):
        assert row["source"] == record["source"]
        assert row["text"] == record["text"]
        assert row["error"] == record.get("error", "")
        if row["error"]:
            assert row["seconds"] == row["probability"] == row["score"] == ""
            assert "seconds" not in record
        else:
            assert float(row["seconds"]) == record["seconds"]
            assert float(row["probability"]) == record["probability"]
            [step] = record["classes"]
            [text, *_] = step
            assert text == record["text"]
            assert step[text] == pytest.approx(record["probability"], abs=ROUNDED)


def test_frames_up_to_a_broken_tail_have_rows(predict, tmp_path, caplog):
    path = write_video(tmp_path / "cut.mkv", "ffv1", count=20, size=(96, 64))
    status, output = predict(cut_off(path, 0.6), "--per_frame")
    assert status == 0
    seconds = [row.split("\t")[1] for row in output.splitlines()]
    assert 10 <= len(seconds) <= 14
    assert seconds == [f"{n / RATE_HZ:.3f}" for n in range(len(seconds))]
    [message] = warned(caplog)
    assert f"cut.mkv: breaks off at {len(seconds) / RATE_HZ:.2f} s" in message


def test_half_the_bits_change_frames_little(checkpoint, classifier, all_videos):
    path = str(all_videos / "a.mkv")
    mixed = list(seq2seq.load(checkpoint, "cpu", "bf16").follow_frames(path))
    exact = list(classifier.follow_frames(path))
    assert not torch.is_autocast_enabled("cpu")
    differences = [
        (one.probabilities - other.probabilities).abs().max().item()
        for one, other in zip(mixed, exact, strict=True)
    ]
    assert 0 < max(differences) < 0.1


def test_no_frame_is_followed_inside_the_callers_autocast(checkpoint, all_videos):
    frames = seq2seq.load(checkpoint, "cpu", "bf16").follow_frames(str(all_videos / "a.mkv"))
    next(frames)
    assert not torch.is_autocast_enabled("cpu")
    frames.close()


# What is refused.


@pytest.mark.parametrize("options", [{"attention": "bilinear"}, {"bidirectional": True}])
def test_what_needs_whole_videos_follows_no_frames(predict, videos, tmp_path, options):
    path = save_classifier(tmp_path, **options)
    assert predict(videos / "a.mkv", checkpoint=path)[0] == 0
    (tmp_path / "out.txt").unlink()
    outcome = predict(videos / "a.mkv", "--per_frame", "--format", "csv", checkpoint=path)
    refused(outcome, "looks at whole videos", "--model.attention none", "bidirectional false")


@pytest.mark.parametrize("options", [("--n_best", "3"), ("--attention_dir", "figures")])
def test_frames_have_one_output_and_no_figure(predict, videos, options):
    outcome = predict(videos / "a.mkv", "--per_frame", *options)
    refused(outcome, "Leave out --n_best and --attention_dir")


def test_only_videos_have_frames(predict, videos, tmp_path):
    path = save_captioner(tmp_path)
    outcome = predict(videos / "a.mkv", "--per_frame", checkpoint=path)
    refused(outcome, "--per_frame is for videos, and this checkpoint reads pictures. Leave it out")
    with pytest.raises(ConfigError, match="Only a video classifier can follow"):
        next(seq2seq.load(path, "cpu").follow_frames("a.mkv"))


def test_only_videos_have_frames_not_text(predict, videos, checkpoint_of_dates):
    outcome = predict(videos / "a.mkv", "--per_frame", checkpoint=checkpoint_of_dates)
    refused(outcome, "--per_frame is for videos, and this checkpoint reads lines. Leave it out")


@pytest.fixture
def checkpoint_of_dates(make_dates, make_translator, tmp_path):
    task, data = make_translator(), make_dates()
    data.prepare_data()
    data.setup("fit")
    task.tokenizers = data.tokenizers
    saving = trainer(tmp_path)
    saving.strategy.connect(task)
    saving.save_checkpoint(tmp_path / "dates.ckpt")
    return tmp_path / "dates.ckpt"


def test_a_folder_without_videos(predict, tmp_path):
    (tmp_path / "some").mkdir()
    refused(predict(tmp_path / "some"), "some: there is no video in this folder or below it")


def test_a_file_that_is_no_video_by_its_name_is_taken_for_a_list(predict, tmp_path):
    (tmp_path / "some.txt").write_bytes(bytes(range(256)))
    refused(predict(tmp_path / "some.txt"), "some.txt: is no video by its name", "a video on each")


# Several clips of a video.


def test_the_probabilities_of_several_clips_are_averaged(predict, tmp_path):
    path = save_classifier(tmp_path, sampling="uniform", clip_frames=3, clips=5)
    loaded = seq2seq.load(path, "cpu")
    assert loaded.task.sampling.clips == 1  # a recipe's number is not the checkpoint's
    frames = pixels(3)
    for name, shown in {"whole": frames, "odd": frames[1::4], "even": frames[3::4]}.items():
        np.save(tmp_path / f"{name}.npy", shown)
    each = [expected(loaded, tmp_path / f"{name}.npy")[0].probabilities for name in ("odd", "even")]
    assert not torch.allclose(*each)
    _, output = predict(
        tmp_path / "whole.npy", "--clips", "2", "--format", "jsonl", checkpoint=path
    )
    assert json.loads(output)["probability"] == pytest.approx(
        torch.stack(each).mean(dim=0).max().item(), abs=1e-5
    )


def test_clips_are_for_whole_videos(predict, videos, tmp_path):
    video = videos / "a.mkv"
    refused(predict(video, "--clips", "0"), "--clips is 0; it must be 1 or more")
    refused(predict(video, "--clips", "2", "--per_frame"), "looks at every frame", "--clips")
    path = save_captioner(tmp_path)
    refused(predict(video, "--clips", "2", checkpoint=path), "--clips is for videos", "pictures")


# The attention.


@pytest.mark.parametrize("positions", ["frames", "cells"])
def test_each_video_has_a_figure_of_the_frames_it_was_told_by(predict, videos, tmp_path, positions):
    path = save_classifier(tmp_path, attention="additive", memory_positions=positions)
    options = ["--attention_dir", str(tmp_path / "figures"), "--clips", "2"]
    figures = tmp_path / "figures"
    status, _ = predict(videos, *options, checkpoint=path)
    assert "2 of 6 inputs" in status
    names = ["a.png", "b.png", "c__d.png", "frames.png"]
    assert sorted(path.name for path in figures.iterdir()) == names


def test_a_folder_of_frames_that_is_the_input_has_a_figure(predict, videos, tmp_path):
    path = save_classifier(tmp_path, attention="dot")
    figures = tmp_path / "figures"
    folder = videos / "frames"
    assert predict(folder, "--attention_dir", str(figures), checkpoint=path)[0] == 0
    assert [path.name for path in figures.iterdir()] == ["frames.png"]
    (tmp_path / "out.txt").unlink()
    outcome = predict(folder, "--attention_dir", str(folder / "figures"), checkpoint=path)
    refused(outcome, "--attention_dir", f"lies in {folder}, whose frames are pictures, too")
    assert len([*folder.glob("*.png")]) == FRAMES
