import csv
import json
import shutil
import tarfile

import pytest
from PIL import Image
from toy_captions import ENTRIES, write_corpus
from toy_clips import ROWS, of_split
from toy_clips import write_corpus as write_videos
from toy_shards import SHARD_BYTES, files_of, sharded_pictures, write
from toy_shards import pictures as read_pictures
from toy_shards import videos as read_videos

from datamodules import shard_writer
from datamodules.shard_store import open_store
from datamodules.shard_writer import write_shards
from seq2seq.errors import DataError


def shards_of(folder):
    return sorted(path.name for path in folder.glob("*.tar"))


@pytest.fixture
def root(tmp_path):
    return write_corpus(tmp_path / "corpus")


# What is written.


def test_the_same_input_gives_the_same_bytes(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "elsewhere")
    for source, output, workers in ((root, "a", 1), (copy, "b", 3)):
        write(read_pictures(source), tmp_path / output, workers=workers)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    write(read_pictures(root, seed=2), tmp_path / "c")
    assert files_of(tmp_path / "a").keys() == files_of(tmp_path / "c").keys()
    assert files_of(tmp_path / "a") != files_of(tmp_path / "c")


def test_shards_have_the_layout_of_webdataset(root, tmp_path):
    write(read_pictures(root), tmp_path / "out")
    found = {}
    for shard in sorted((tmp_path / "out").glob("train-*.tar")):
        samples = {}
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                samples.setdefault(key, {})[ending] = tar.extractfile(member).read()
                assert list(samples)[-1] == key  # the files of a sample follow each other
        assert len(samples) == 2
        found |= samples
    train = [entry for entry in ENTRIES if entry.split == "train"]
    assert sorted(found) == [f"{place:09}" for place in range(len(train))]
    assert list(found) != sorted(found)  # sources go class by class
    for key, sample in found.items():
        entry = train[int(key)]
        assert sample["png"] == (root / "images" / entry.name).read_bytes()
        known = json.loads(sample["json"])
        assert known["name"] == entry.name
        assert known["samples"][0]["captions"] == list(entry.captions)


def test_shards_are_as_large_as_told(tmp_path):
    data = read_videos(write_videos(tmp_path / "files"))
    for size in (3_000, 9_000):
        written = write(data, tmp_path / str(size), shard_bytes=size)
        assert written.samples == len(ROWS)
        for path in (tmp_path / str(size)).glob("*.tar"):
            with tarfile.open(path) as tar:
                *_, last = tar
                assert last.offset_data + last.size <= size
    assert len(shards_of(tmp_path / "3000")) > len(shards_of(tmp_path / "9000"))


# Going on, and doing it again.


def test_an_interrupted_run_leaves_finished_shards_and_goes_on(tmp_path, monkeypatch):
    source = write_videos(tmp_path / "files")
    data = read_videos(source)
    write(data, tmp_path / "whole")
    add = shard_writer._add

    def stop(tar, item, *contents):
        if item.path.name == "v8.npy":
            raise KeyboardInterrupt
        return add(tar, item, *contents)

    monkeypatch.setattr(shard_writer, "_add", stop)
    with pytest.raises(KeyboardInterrupt):
        write(data, tmp_path / "out", workers=1)
    begun = shards_of(tmp_path / "out")
    whole = shards_of(tmp_path / "whole")
    assert 0 < len(begun) < len(whole)
    assert not (tmp_path / "out/index.json").exists()
    finished = files_of(tmp_path / "whole")
    assert files_of(tmp_path / "out") == {name: finished[name] for name in begun}
    with pytest.raises(DataError, match=r"has no index\.json, .*Let it finish"):
        read_videos(tmp_path / "out", format="shards")
    monkeypatch.undo()
    assert write(data, tmp_path / "out").kept == len(begun)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_only_what_has_changed_is_written_again(root, tmp_path):
    output = tmp_path / "out"
    count = write(read_pictures(root), output).shards
    times = {name: (output / name).stat().st_mtime_ns for name in shards_of(output)}
    assert write(read_pictures(root), output).kept == count
    Image.new("RGB", (9, 7), "red").save(root / "images/val/2.png")
    assert write(read_pictures(root), output).kept == count - 1
    changed = [name for name in times if (output / name).stat().st_mtime_ns != times[name]]
    assert changed == ["val-000001.tar"]
    (output / "test-000000.tar").write_bytes(b"cut off")
    (output / ".prepared/train-000001.json").write_text("{")
    assert write(read_pictures(root), output).kept == count - 2
    write(read_pictures(root), tmp_path / "new")
    assert files_of(output) == files_of(tmp_path / "new")


def test_shards_of_an_earlier_run_that_are_too_many_are_removed(root, tmp_path):
    write(read_pictures(root), tmp_path / "out")
    (tmp_path / "out/train-000001-mine.tar").write_text("")
    write(read_pictures(root), tmp_path / "out", shard_bytes=10**6)
    assert shards_of(tmp_path / "out") == [
        "test-000000.tar",
        "train-000000.tar",
        "train-000001-mine.tar",
        "val-000000.tar",
    ]
    assert len([*(tmp_path / "out/.prepared").glob("*.json")]) == 3


def test_a_split_that_there_is_no_more_is_removed(root, tmp_path):
    data = read_pictures(root)
    write(data, tmp_path / "out")
    source = data.shard_source()
    without = source._replace(items=[item for item in source.items if item.split != "test"])
    for output in ("out", "new"):
        write_shards(without, open_store(str(tmp_path / output)), SHARD_BYTES, 2)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "new")
    assert not [*(tmp_path / "out/.prepared").glob("test-*")]


def test_only_one_run_at_a_time_writes_into_a_folder(root, tmp_path):
    with (
        open_store(str(tmp_path / "out")).claimed(),
        pytest.raises(DataError, match=r"out: another seq2seq-prepare is writing there\. Wait for"),
    ):
        write(read_pictures(root), tmp_path / "out")
    assert write(read_pictures(root), tmp_path / "out").shards == 6


# Bad files.


def test_bad_pictures_follow_the_policy(root, tmp_path):
    (root / "images/val/1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"val/1\.png: the file is empty"):
        write(read_pictures(root), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    options = {"on_bad_picture": "quarantine", "max_bad_share": 0.1}
    assert write(read_pictures(root, **options), tmp_path / "out").samples == 10
    shards = sharded_pictures(tmp_path / "out", tmp_path)
    found = [references for batch in shards.val_dataloader() for references in batch.references]
    assert len(found) == 2
    assert ENTRIES[8].captions not in found


def test_bad_videos_are_errors_or_left_out(tmp_path):
    source = write_videos(tmp_path / "files")
    for number in (of_split("train")[1], of_split("test")[0]):
        (source.parent / f"v{number}.npy").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"(?s)2 of 12 videos .*v1\.npy: cannot .*v10\.npy.*on_bad_video quaran"
    ):
        write(read_videos(source), tmp_path / "out")
    assert not (tmp_path / "out/index.json").exists()
    assert [name for name in shards_of(tmp_path / "out") if name.startswith("val")]
    options = {"on_bad_video": "quarantine", "max_bad_share": 0.6}
    for kept in (False, True):  # an earlier run does not hide them
        written = write(read_videos(source, **options), tmp_path / "out")
        assert (written.samples, written.left_out) == (10, 2)
        assert (written.kept == written.shards) is kept
        with (source.parent / ".seq2seq_cache/quarantine.csv").open(newline="") as file:
            assert [row[0].rpartition("/")[2] for row in csv.reader(file)] == [
                "path",
                "v1.npy",
                "v10.npy",
            ]
    shards = read_videos(tmp_path / "out", format="shards")
    assert sum(len(batch.indices) for batch in shards.train_dataloader()) == 6
    [batch] = shards.test_dataloader()
    assert batch.references == (("wave",),)
    with pytest.raises(DataError, match=r"1 of 2 videos of the test split .*max_bad_share"):
        write(read_videos(source, on_bad_video="quarantine", max_bad_share=0.2), tmp_path / "out")


def test_a_place_that_cannot_be_written_is_an_error(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file: cannot be written .*Set --output to a folder"):
        write(read_pictures(root), tmp_path / "file")
