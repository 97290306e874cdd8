import csv
import pickle
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from toy_captions import ENTRIES, write_captions, write_corpus, write_pictures
from toy_clips import write_array
from toy_clips import write_corpus as write_videos
from toy_shards import (
    GEOMETRY,
    assert_equal,
    batches,
    in_memory,
    pictures,
    sharded_pictures,
    videos,
    write,
)
from toy_videos import write_video

from datamodules.caption_dataset import PictureFiles
from datamodules.check import read_all
from datamodules.clip_augmentation import ClipAugmentation
from datamodules.shard_store import open_store
from datamodules.shard_table import SampleTable
from datamodules.shards import Shards
from seq2seq.errors import ConfigError, DataError
from seq2seq.videos import ClipSampling

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("captions"))


@pytest.fixture(scope="module")
def sharded(root, tmp_path_factory):
    """Return a folder of shards of the pictures; it must be left as it is."""
    output = tmp_path_factory.mktemp("sharded")
    assert write(pictures(root), output).shards == 6
    return output


@pytest.fixture
def url(sharded):
    with in_memory(sharded) as place:
        yield place


# The same batches as from files.


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"flip": True, "captions_per_picture": 1, "seed": 3},
        {"vocabulary": "char", "vocab_size": 24, "caption_style": "raw", "max_caption_length": 9},
    ],
)
def test_batches_are_those_of_files(root, sharded, tmp_path, options):
    files, shards = pictures(root, **options), sharded_pictures(sharded, tmp_path, **options)
    for role in SPLITS:
        for epoch in (0, 1):
            assert_equal(batches(shards, role, epoch), batches(files, role, epoch))
    assert shards.training_references() == files.training_references()
    assert torch.equal(shards.look_up("val", 1), files.look_up("val", 1))


def test_the_splits_are_those_of_the_recipe(tmp_path):
    write_pictures(tmp_path / "images")
    write_captions(tmp_path / "captions.txt", "flickr")
    options = {"val_share": 0.25, "test_share": 0.17, "seed": 2, "vocab_size": 8}
    files = pictures(tmp_path, **options)
    write(files, tmp_path / "out")
    shards = sharded_pictures(tmp_path / "out", tmp_path, vocab_size=8, seed=2)
    for role in SPLITS:
        assert_equal(batches(shards, role), batches(files, role))


@pytest.mark.parametrize("sampling", [ClipSampling(clip_frames=5), ClipSampling("segment", 3)])
def test_clips_are_those_of_files(tmp_path, sampling):
    source = write_videos(tmp_path / "files")
    options = {"augmentation": ClipAugmentation(crop_scale=0.5), "seed": 4}
    files = videos(source, sampling, **options)
    assert write(files, tmp_path / "out").shards > 4
    shards = videos(tmp_path / "out", sampling, format="shards", **options)
    assert shards.class_names == files.class_names
    assert torch.equal(shards.label_counts(), files.label_counts())
    for role in SPLITS:
        assert_equal(batches(shards, role, 1), batches(files, role, 1))
    joined = videos(tmp_path / "out", format="shards", train_on_val=True, shard_window=2)
    seen = torch.cat([batch.indices for batch in batches(joined, "train")])
    assert sorted(seen.tolist()) == list(range(10))


def test_parts_labels_and_videos_of_all_kinds_are_kept(tmp_path):
    write_array(tmp_path / "v0.npy", 0)
    write_video(tmp_path / "v1.mkv", "ffv1", count=10, size=(8, 8))
    (tmp_path / "frames").mkdir()
    for number in range(12):
        picture = np.full((8, 8), 20 * number, dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "frames" / f"frame-{number}.png")
    rows = [
        ("v0.npy", "pick up; box", 0, 0.4, "a", "train"),
        ("frames", "put down; cup", 0.3, "", "b", "train"),
        ("v0.npy", "put down; box", 0.5, "", "a", "train"),
        ("v1.mkv", "pick up; cup", "", 99, "c", "val"),
    ]
    with (tmp_path / "parts.csv").open("w", newline="") as file:
        columns = ("path", "label", "start", "end", "group", "split")
        csv.writer(file).writerows([columns, *rows])
    options = {"num_classes": 4, "label_steps": 2}
    sampling = ClipSampling(clip_frames=3)
    files = videos(tmp_path / "parts.csv", sampling, label_separator=";", **options)
    assert write(files, tmp_path / "out", shard_bytes=10**6).samples == 4
    shards = videos(tmp_path / "out", sampling, format="shards", **options)
    for role in ("train", "val"):
        assert_equal(batches(shards, role), batches(files, role))
        for entry, known in zip(shards._splits[role], files._splits[role], strict=True):
            assert entry[1:] == known[1:]
    assert all(finding.problem is None for finding in read_all(shards.iter_readings()))


# Resuming, workers, and places to read from.


def test_an_epoch_goes_on_where_it_was_left_whatever_the_number_of_workers(sharded, tmp_path):
    def loader(**options):
        data = sharded_pictures(
            sharded, tmp_path, batch_size=1, flip=True, shard_window=1, **options
        )
        return data.train_dataloader()

    whole = loader()
    whole.set_epoch(2)
    expected = list(whole)
    first = loader()
    first.set_epoch(2)
    begun = iter(first)
    found = [next(begun) for _ in range(3)]
    second = loader(num_workers=2)
    second.load_state_dict(first.state_dict())
    second.set_epoch(2)
    assert_equal(found + list(second), expected)


def test_a_url_gives_the_same_and_keeps_little_of_it(sharded, url, tmp_path):
    options = {"batch_size": 1, "shard_window": 1}
    local = sharded_pictures(sharded, tmp_path / "local", **options)
    limit = 22_000  # two shards
    remote = sharded_pictures(url, tmp_path / "remote", shard_cache_gb=limit / 1e9, **options)
    for role in ("train", "val", "train"):
        assert_equal(batches(remote, role), batches(local, role))
        kept = [path.stat().st_size for path in (tmp_path / "remote/shards").glob("*.tar")]
        assert 0 < sum(kept) <= limit
    workers = sharded_pictures(url, tmp_path / "remote", num_workers=2, **options)
    assert_equal(batches(workers, "train"), batches(local, "train"))
    assert not [*(tmp_path / "remote/shards").glob(".*.partial")]


def test_shards_can_be_written_to_a_url(root, sharded, tmp_path):
    written = write(pictures(root), "memory://written/to")
    assert (written.shards, written.kept) == (6, 0)
    assert write(pictures(root), "memory://written/to").kept == 6
    files = fsspec.filesystem("memory")
    for path in sharded.glob("[!.]*"):
        assert files.cat_file(f"/written/to/{path.name}") == path.read_bytes()
    files.rm_file("/written/to/val-000000.tar")
    assert write(pictures(root), "memory://written/to").kept == 5
    remote = sharded_pictures("memory://written/to", tmp_path)
    assert len(batches(remote, "test")) == 1
    files.rm("/written", recursive=True)


def test_threads_make_their_shards_in_one_folder_which_goes_when_all_are_written():
    store = open_store("memory://written/by/threads")
    start = threading.Barrier(8)

    def place(number):
        start.wait()
        return store.scratch(f"train-{number:06d}.tar").parent

    with store.claimed(), ThreadPoolExecutor(8) as pool:
        (folder,) = set(pool.map(place, range(8)))
        assert folder.is_dir()
    assert not folder.exists()


def test_no_folder_for_unfinished_shards_is_refused(root, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"unfinished shards \(No such file.*\)\. Set TMPDIR to"):
        write(pictures(root), "memory://written/nowhere")


def test_a_file_url_is_read_in_place(sharded, tmp_path):
    data = sharded_pictures(f"file://{sharded}", tmp_path, shard_cache_gb=0)
    assert len(batches(data, "val")) == 2
    assert not (tmp_path / "shards").exists()


def test_too_little_room_is_refused(url, tmp_path):
    with pytest.raises(ConfigError, match=r"shard_cache_gb=1e-05 .*set --data\.shard_window to 1"):
        sharded_pictures(url, tmp_path, shard_cache_gb=1e-5)
    with pytest.raises(ConfigError, match=r"\(--data\.shard_window=1\), .*Raise it, or lower it"):
        sharded_pictures(url, tmp_path, shard_cache_gb=1e-5, shard_window=1)


# What is in memory.


def test_a_table_has_its_samples_on_disk(sharded, tmp_path):
    train = [entry for entry in ENTRIES if entry.split == "train"]
    table = SampleTable(sharded / "train.jsonl", "train", len(train))
    assert [tuple(sample.values["captions"]) for sample in table] == [e.captions for e in train]
    assert [table[place] for place in range(len(table))] == list(table)
    assert table[-1] == table[5]
    assert table[1:4] == [table[1], table[2], table[3]]
    with pytest.raises(IndexError):
        table[6]
    lines = (sharded / "train.jsonl").read_text()
    (tmp_path / "long.jsonl").write_text(lines * 1000)
    long = SampleTable(tmp_path / "long.jsonl", "train", 6000)
    assert long[3999].values == table[3].values
    per_sample = (len(pickle.dumps(long)) - len(pickle.dumps(table))) / (6000 - 6)
    assert per_sample < 8.1
    with pytest.raises(DataError, match=r"has 6000 lines, not 6\. Run seq2seq-prepare again"):
        SampleTable(tmp_path / "long.jsonl", "train", 6)


def test_data_sets_of_shards_can_be_pickled(sharded, tmp_path):
    loader = sharded_pictures(sharded, tmp_path).train_dataloader()
    again = pickle.loads(pickle.dumps(loader.dataset))
    assert torch.equal(again[3].view, loader.dataset[3].view)


def test_features_are_known_by_the_shards(root, sharded, tmp_path):
    def fingerprint(folder):
        shards = Shards(str(folder), "pictures", tmp_path, 1.0, None)
        paths = [sample.path for sample in shards.samples("val")]
        return PictureFiles(paths, GEOMETRY, shards=shards).fingerprint()

    assert fingerprint(sharded) == fingerprint(shutil.copytree(sharded, tmp_path / "copy"))
    other = shutil.copytree(root, tmp_path / "root")
    Image.new("RGB", (9, 7), "red").save(other / "images/val/2.png")
    write(pictures(other), tmp_path / "other")
    assert fingerprint(sharded) != fingerprint(tmp_path / "other")
