import json
import shutil

import fsspec
import pytest
from toy_captions import write_corpus
from toy_clips import RATE_HZ
from toy_clips import write_corpus as write_videos
from toy_shards import batches, in_memory, pictures, sharded_pictures, videos, write

from datamodules import CaptionDataModule
from datamodules.check import read_all
from seq2seq.errors import ConfigError, DataError


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
def own(sharded, tmp_path):
    """Return a copy of it, which may be damaged."""
    return shutil.copytree(sharded, tmp_path / "own")


@pytest.fixture
def url(sharded):
    with in_memory(sharded) as place:
        yield place


# Files that are damaged.


def truncate(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path.stat().st_size


def test_missing_and_truncated_shards_are_one_error(own, tmp_path):
    (own / "val-000000.tar").unlink()
    size = truncate(own / "train-000001.tar")
    with pytest.raises(
        DataError,
        match=rf"(?s)own: .*cut off or replaced \(1\): train-000001\.tar \({size} bytes, not "
        r"10240\).*not exist \(1\): val-000000\.tar\. Get .*again: it keeps",
    ):
        sharded_pictures(own, tmp_path)


def test_a_shard_that_breaks_later_is_an_error_too(own, tmp_path):
    data = sharded_pictures(own, tmp_path)
    for path in own.glob("val-*.tar"):
        truncate(path, 0.1)
    with pytest.raises(DataError, match=r"val-000000\.tar: ends before byte \d+, within a sample"):
        batches(data, "val")
    (own / "val-000000.tar").unlink()
    with pytest.raises(DataError, match=r"val-000000\.tar: does not exist any more"):
        batches(data, "val")


def test_a_shard_that_is_written_again_while_it_is_read_is_an_error(own, tmp_path):
    data = sharded_pictures(own, tmp_path)
    batches(data, "val")
    for path in own.glob("val-*.tar"):
        replaced = path.read_bytes()
        path.with_suffix(".new").write_bytes(replaced)
        path.with_suffix(".new").replace(path)
    with pytest.raises(DataError, match=r"val-000000\.tar: has been written again since this run"):
        batches(data, "val")
    assert batches(sharded_pictures(own, tmp_path), "val")


def test_shards_of_a_url_are_checked_when_they_are_fetched(url, tmp_path):
    memory = fsspec.filesystem("memory")
    content = memory.cat_file("/corpus/val-000000.tar")
    damaged = {
        r"has 5000 bytes, not 10240": content[:5000],
        r"has another content": content[:-1] + b"x",
        r"files that do not exist": None,
    }
    for number, (message, replaced) in enumerate(damaged.items()):
        if replaced is None:
            memory.rm_file("/corpus/val-000000.tar")
        else:
            memory.pipe_file("/corpus/val-000000.tar", replaced)
        data = sharded_pictures(url, tmp_path / str(number))
        assert len(batches(data, "test")) == 1
        with pytest.raises(DataError, match=rf"memory://corpus/val-000000\.tar: {message}"):
            batches(data, "val")
        assert not [*(tmp_path / str(number) / "shards").glob(".*.partial")]


def test_a_bad_sample_is_called_by_its_name(own, tmp_path):
    shard = own / "val-000000.tar"
    content = shard.read_bytes()
    start = content.index(b"\x89PNG")
    shard.write_bytes(content[: start + 60] + b"\0" * 40 + content[start + 100 :])
    data = sharded_pictures(own, tmp_path)
    with pytest.raises(DataError, match=r"own/val-000000\.tar: val/0\.png: cannot be decoded"):
        batches(data, "val")
    found = read_all(data.iter_readings())
    assert [finding.name for finding in found if finding.problem] == ["val/0/val/0.png"]


def test_a_bad_video_is_called_by_its_name(tmp_path):
    source = write_videos(tmp_path / "files")
    write(videos(source), tmp_path / "out")
    for shard in (tmp_path / "out").glob("test-*.tar"):
        shard.write_bytes(shard.read_bytes().replace(b"NUMPY", b"NUMPI"))
    data = videos(tmp_path / "out", format="shards")
    with pytest.raises(DataError, match=r"test-000000\.tar: v10\.npy: cannot be read as an array"):
        batches(data, "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"has no index\.json, which seq2seq-prepare writes last"),
        ("{", r"index\.json is damaged .*Run seq2seq-prepare again"),
        ("[]", r"index\.json is damaged"),
        ('{"layout": 7}', r"has layout 7, and this version reads 1"),
        ('{"layout": 1, "kind": "pictures"}', r"damaged \('shards'\)"),
    ],
)
def test_an_index_that_cannot_be_used_is_an_error(own, tmp_path, content, message):
    (own / "index.json").unlink()
    if content is not None:
        (own / "index.json").write_text(content)
    with pytest.raises(DataError, match=message):
        sharded_pictures(own, tmp_path)


def test_other_places_and_kinds_are_refused(sharded, tmp_path):
    with pytest.raises(DataError, match=r"holds pictures, where videos are needed"):
        videos(sharded, format="shards", cache_dir=str(tmp_path))
    for place in (tmp_path / "nowhere", "memory://nowhere"):
        with pytest.raises(DataError, match=r"nowhere: has no index\.json"):
            sharded_pictures(place, tmp_path)
    with pytest.raises(DataError, match=r"nonsense://x: Protocol not known.*s3fs for s3://"):
        sharded_pictures("nonsense://x", tmp_path)


def test_a_split_without_samples_matters_when_it_is_asked_for(own, tmp_path):
    index = json.loads((own / "index.json").read_text())
    del index["tables"]["test"]
    (own / "index.json").write_text(json.dumps(index))
    data = sharded_pictures(own, tmp_path)
    with pytest.raises(DataError, match=r"the test split has no pictures"):
        data.test_dataloader()


def test_options_that_do_not_fit_shards_are_refused(sharded, root):
    with pytest.raises(ConfigError) as caught:
        CaptionDataModule(
            str(sharded),
            format="shards",
            val_captions="val.csv",
            shard_window=0,
            shard_cache_gb=-1.0,
        )
    for option in (
        "and test_captions, or set them to null",
        "shard_window is 0",
        "shard_cache_gb is -1",
    ):
        assert option in str(caught.value)
    with pytest.raises(ConfigError, match=r"--data\.images is not set"):
        CaptionDataModule(str(root / "captions.csv"))
    with pytest.raises(ConfigError, match=r"--data\.shard_window is for --data\.format shards"):
        pictures(root, shard_window=3)
    with pytest.raises(ConfigError, match=r"--data\.cache_frames keeps all frames"):
        videos(sharded, format="shards", cache_frames=True)
    with pytest.raises(ConfigError, match=r"--data\.shard_window is for"):
        videos("videos.csv", shard_window=3, stills_rate_hz=RATE_HZ)
