import csv
import gc
import logging
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_classifier import classifier
from toy_clips import ROWS, brightness, of_split, shown, write_array, write_corpus
from toy_videos import cut_off, write_video

from datamodules.quarantine import Quarantine
from seq2seq.errors import DataError
from seq2seq.tokenizers import FIRST_LABEL_ID

BAD = 4  # of the training videos, by number; its place there is the same


@pytest.fixture
def source(tmp_path):
    table = write_corpus(tmp_path)
    (tmp_path / f"v{BAD}.npy").write_bytes(b"no array")
    return table


def write_empty(path):
    np.save(path, np.zeros((0, 8, 8), dtype=np.uint8))


def quarantined(source, **options):
    return shown(source, on_bad_video="quarantine", **{"max_bad_share": 0.5, **options})


def listed(source):
    path = source.parent / ".seq2seq_cache" / "quarantine.csv"
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "error", "count"]
    return {Path(path).name: (error, int(count)) for path, error, count in rows[1:]}


def examples(loader, epoch=0):
    """Return position, first brightness and class of each example, in the order they come."""
    loader.set_epoch(epoch)
    found = []
    for batch in loader:
        firsts = batch.inputs.frames[:, 0, 0, 0, 0, -1].tolist()
        classes = (batch.target.flatten() - FIRST_LABEL_ID).tolist()
        found += zip(batch.indices.tolist(), firsts, classes, strict=True)
    return found


def whole(place):
    """Return what ``examples`` gives of a training video."""
    label = sorted({row[1] for row in ROWS}).index(ROWS[place][1])
    return place, brightness(place, 1), label


# The policy ``error``.


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_video_is_an_error_with_its_name_and_no_traceback(source, num_workers):
    loader = shown(source, num_workers=num_workers).train_dataloader()
    with pytest.raises(DataError) as caught:
        examples(loader)
    message = str(caught.value)
    assert message.startswith(f"{source.parent}/v{BAD}.npy: cannot be read as an array")
    assert message.endswith("as a uint8 array (time, height, width[, channels]).")


def test_all_bad_videos_are_named_where_frames_are_kept(source):
    write_empty(source.parent / "v1.npy")
    with pytest.raises(DataError) as caught:
        shown(source, cache_frames=True).train_dataloader()
    message = str(caught.value)
    assert message.startswith("2 of 7 videos of the train split cannot be read:\n  - ")
    assert "v1.npy: an array of shape (0, 8, 8) has no pixels." in message
    assert "v4.npy: cannot be read as an array" in message
    assert message.endswith("leave them out with --data.on_bad_video quarantine.")


# The policy ``quarantine``.


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_next_good_video_takes_the_place_as_what_it_is(source, num_workers):
    write_empty(source.parent / "v5.npy")
    loader = quarantined(source, num_workers=num_workers).train_dataloader()
    for epoch in range(3):
        found = examples(loader, epoch)
        assert sorted(found) == sorted(whole(place) for place in (0, 1, 2, 3, 6, 6, 6))
    assert listed(source)["v5.npy"][0].startswith("an array of shape (0, 8, 8) has no pixels")
    # Met in its own place, and once more in the place of the one before.
    assert {name: count for name, (_, count) in listed(source).items()} == {
        "v4.npy": 3,
        "v5.npy": 6,
    }


def test_after_the_last_video_comes_the_first(source):
    write_array(source.parent / f"v{BAD}.npy", BAD)
    write_empty(source.parent / "v6.npy")
    found = examples(quarantined(source).train_dataloader())
    assert sorted(found) == sorted(whole(place) for place in (0, 0, 1, 2, 3, 4, 5))


def test_a_substitute_in_evaluation_has_the_position_of_the_real_example(source):
    write_empty(source.parent / f"v{of_split('val')[1]}.npy")
    [first, last, again] = examples(quarantined(source).val_dataloader())
    assert (first[0], last[0]) == (0, 2)
    assert last == again


def test_where_frames_are_kept_bad_videos_are_left_out(source):
    loader = quarantined(source, cache_frames=True).train_dataloader()
    found = examples(loader)
    assert sorted(position for position, *_ in found) == list(range(6))
    expected = [whole(place)[1:] for place in range(7) if place != BAD]
    assert sorted(row[1:] for row in found) == sorted(expected)
    assert list(listed(source)) == ["v4.npy"]


@pytest.mark.parametrize("cache_frames", [False, True])
def test_the_run_stops_where_too_many_are_bad(source, cache_frames, caplog):
    write_empty(source.parent / "v0.npy")
    data = quarantined(source, max_bad_share=0.2, cache_frames=cache_frames)
    with pytest.raises(DataError) as caught, caplog.at_level(logging.WARNING):
        examples(data.train_dataloader())
    message = str(caught.value)
    assert message.startswith("2 of 7 videos of the train split cannot be read, more than the ")
    assert "share of 0.2; " in message
    assert "quarantine.csv has the reasons" in message
    assert message.endswith("or raise --data.max_bad_share.")
    assert len(listed(source)) == 2
    assert sum("left out: " in record.message for record in caplog.records) == 2


def test_a_share_of_one_puts_up_with_all_but_the_last(tmp_path):
    source = write_corpus(tmp_path)
    for number in of_split("val"):
        write_empty(tmp_path / f"v{number}.npy")
    with pytest.raises(DataError, match="None of the videos can be read"):
        examples(quarantined(source, max_bad_share=1.0).val_dataloader())


def test_the_splits_are_judged_by_themselves(source):
    write_empty(source.parent / f"v{of_split('test')[0]}.npy")
    data = quarantined(source, max_bad_share=0.4)
    examples(data.train_dataloader())
    with pytest.raises(DataError, match=r"1 of 2 videos of the test split"):
        examples(data.test_dataloader())


def test_a_new_run_begins_with_an_empty_list(source):
    examples(quarantined(source).train_dataloader())
    write_array(source.parent / f"v{BAD}.npy", BAD)
    write_empty(source.parent / "v2.npy")
    examples(quarantined(source).train_dataloader())
    assert list(listed(source)) == ["v2.npy"]


def test_what_other_splits_left_out_stays_listed(source):
    write_empty(source.parent / f"v{of_split('test')[0]}.npy")
    examples(quarantined(source).train_dataloader())
    for _ in range(2):
        examples(quarantined(source).test_dataloader())
    assert {name: count for name, (_, count) in listed(source).items()} == {
        "v4.npy": 1,
        "v10.npy": 1,
    }


def test_a_test_and_a_resumed_training_keep_the_list_of_the_training(source, make_trainer):
    fitting = make_trainer(max_epochs=2)
    fitting.fit(classifier(), quarantined(source))
    fitting.save_checkpoint(source.parent / "last.ckpt")
    assert listed(source)["v4.npy"][1] == 2
    fitting.test(classifier(), quarantined(source), verbose=False)
    assert listed(source)["v4.npy"][1] == 2
    resumed = make_trainer(max_epochs=3)
    resumed.fit(classifier(), quarantined(source), ckpt_path=source.parent / "last.ckpt")
    assert listed(source)["v4.npy"][1] == 3
    make_trainer(max_epochs=1).fit(classifier(), quarantined(source))
    assert listed(source)["v4.npy"][1] == 1


def test_half_a_row_is_no_row(source):
    file = source.parent / ".seq2seq_cache" / "quarantine.csv"
    file.parent.mkdir()
    file.write_text('path,error,count\nother.mp4,broken,2\nv1.mp4,"bro')
    examples(quarantined(source).train_dataloader())
    assert list(listed(source)) == ["other.mp4", "v4.npy"]


def test_a_list_that_cannot_be_written_is_an_error(source, tmp_path):
    (tmp_path / "file").write_text("")
    data = quarantined(source, cache_dir=str(tmp_path / "file"))
    with pytest.raises(
        DataError, match=r"list of bad videos cannot be written .*--data\.cache_dir"
    ):
        examples(data.train_dataloader())


def test_a_name_that_is_no_text_is_listed_as_it_is(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.avi")
    file = tmp_path / "quarantine.csv"
    for count in (1, 2):
        Quarantine(file, [path, file], "train", max_bad_share=1.0).note(path, "broken")
        assert file.read_bytes().splitlines()[1:] == [b"%b,broken,%d" % (bytes(path), count)]
    Quarantine(file, [path], "train", max_bad_share=1.0).forget()
    assert len(file.read_bytes().splitlines()) == 1


def note(file, path):
    quarantine = Quarantine(file, [path, file], "train", max_bad_share=1.0)
    for _ in range(25):
        quarantine.note(path, f'{path}: of "two", lines\nand commas')


def test_processes_take_turns(tmp_path):
    file = tmp_path / "quarantine.csv"
    paths = [tmp_path / "a", tmp_path / "b", tmp_path / "b"]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=note, args=(file, path)) for path in paths]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    with file.open(newline="") as stream:
        rows = sorted(list(csv.reader(stream))[1:])
    assert rows == [
        [str(tmp_path / "a"), 'of "two", lines\nand commas', "25"],
        [str(tmp_path / "b"), 'of "two", lines\nand commas', "50"],
    ]


# Broken tails.


@pytest.fixture
def broken(tmp_path):
    """Return a table of two classes; the only video of one breaks off after about a second."""
    cut_off(write_video(tmp_path / "cut.mkv", "ffv1", count=20, size=(96, 64)), 0.6)
    write_array(tmp_path / "good.npy", 0)
    (tmp_path / "videos.csv").write_text("path,label\ncut.mkv,a\ngood.npy,b\n")
    return tmp_path / "videos.csv"


def test_a_broken_tail_is_an_error_or_cut_off(broken):
    with pytest.raises(DataError, match=r"cut\.mkv: broken from 1\.\d+ s on .*broken_tail=cut"):
        examples(shown(broken, num_classes=2).train_dataloader())
    found = []
    for cache_frames in (False, True):
        data = shown(broken, num_classes=2, broken_tail="cut", cache_frames=cache_frames)
        [batch] = data.train_dataloader()
        found.append(batch.inputs.frames[batch.indices.argsort()])
    assert torch.equal(*found)
    means = found[0][0, 0].float().mean(dim=(1, 2, 3))
    assert (means.diff() > 5).all()


def test_no_file_stays_open(broken):
    def open_files():
        return len([*Path("/proc/self/fd").iterdir()])

    data = quarantined(broken, num_classes=2)
    examples(data.train_dataloader())
    gc.collect()  # what other tests have left
    before = open_files()
    for epoch in range(3):
        examples(data.train_dataloader(), epoch)
        examples(shown(broken, num_classes=2, broken_tail="cut").train_dataloader(), epoch)
    assert open_files() == before
