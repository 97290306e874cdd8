import io
import json
import re
import shutil
import tarfile

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from toy_captions import write_weights
from toy_classifier import assert_equal_weights, with_backbone
from toy_clips import RATE_HZ, ROWS, module, of_split, write_array
from toy_clips import write_corpus as write_videos
from toy_shards import assert_equal, batches, files_of, in_memory, videos, write
from toy_videos import cut_off, write_video

import seq2seq
from datamodules import samplers, shard_video_features
from datamodules.check import read_all
from datamodules.shards import Shards
from seq2seq.encoders.grid import GridNetwork
from seq2seq.errors import ConfigError, DataError

SPLITS = ("train", "val", "test")
SHARD_BYTES = 24_000


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(write_weights(tmp_path_factory.mktemp("weights") / "backbone.pt"))


def write_corpus(folder):
    """Write videos of several kinds, some of them with parts, and a table of them."""
    table = write_videos(folder)
    write_video(folder / "steady.mp4", b_frames=2)
    write_video(folder / "uneven.mkv", "mpeg4", count=5, times_ms=[0, 130, 300, 1210, 1500])
    rows = table.read_text().splitlines()
    lines = [f"{row},," for row in rows[1:]]
    lines.insert(2, "steady.mp4,fred,jump,train,0.72,")
    lines.insert(5, "uneven.mkv,gina,wave,train,0.2,1.25")
    lines += ["steady.mp4,fred,wave,train,0.1,0.33", "uneven.mkv,gina,jump,train,1.3,99"]
    table.write_text("\n".join([f"{rows[0]},start,end", *lines]) + "\n")
    return table


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("videos"))


def write_features(source, weights, output, model=None, writing=(), **options):
    """Write the features of the frames of videos into shards."""
    task = with_backbone(backbone_weights=weights, **(model or {})).eval()
    task.load_initial_weights()
    data = module(source, cache_features=True, **options)
    task.show(data)
    return write(data, output, **{"shard_bytes": SHARD_BYTES, **dict(writing)})


@pytest.fixture(scope="module")
def sharded(source, weights, tmp_path_factory):
    """Return a folder of shards of features; it must be left as it is."""
    output = tmp_path_factory.mktemp("sharded")
    written = write_features(source, weights, output)
    assert (written.samples, written.left_out) == (16, 0)
    assert written.shards > 4
    return output


@pytest.fixture
def own(sharded, tmp_path):
    """Return a copy of it, which may be damaged."""
    return shutil.copytree(sharded, tmp_path / "own")


def features(source, cache, **options):
    """Return a data module of features in shards."""
    options = {"cache_features": True, "cache_dir": str(cache), **options}
    return module(source, format="shards", **options)


class Losses(Callback):
    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, *_):
        self.found.append(trainer.callback_metrics["train/loss"].item())


def fit(data, weights, make_trainer, model=None, **options):
    """Return a classifier after some steps, their losses, and its metrics of validation."""
    torch.manual_seed(1)
    losses = Losses()
    fitting = make_trainer(**{"max_steps": 5, "max_epochs": -1, "callbacks": [losses], **options})
    task = with_backbone(backbone_weights=weights, dropout=0.2, **(model or {}))
    fitting.fit(task, data)
    metrics = {name: value.item() for name, value in fitting.callback_metrics.items()}
    return task, losses.found, metrics


# What is written.


def samples_of(folder):
    """Return the files of each video in the shards, by its name."""
    found = {}
    for shard in folder.glob("*.tar"):
        with tarfile.open(shard) as tar:
            content = {member.name: tar.extractfile(member).read() for member in tar}
        for key in {name.partition(".")[0] for name in content}:
            known = json.loads(content[f"{key}.json"])
            endings = {name.partition(".")[2]: name for name in content if name.startswith(key)}
            assert endings.keys() == {"json", "npy", "times.npy"}
            arrays = [np.load(io.BytesIO(content[endings[end]])) for end in ("npy", "times.npy")]
            found[known["name"]] = arrays
    return found


def test_shards_have_the_features_of_each_frame_and_its_time(source, weights, sharded):
    task = with_backbone(backbone_weights=weights).eval()
    task.load_initial_weights()
    found = samples_of(sharded)
    assert len(found) == len(ROWS) + 2
    for number in range(len(ROWS)):
        stored, times = found[f"v{number}.npy"]
        frames = np.load(source.parent / f"v{number}.npy")
        views = torch.stack(
            [task.preparation(torch.from_numpy(frame).expand(3, -1, -1)) for frame in frames]
        )
        assert stored.dtype == np.float16
        assert stored.shape == (10, *task.feature_shape)
        expected = task.grid_network.extract(views).half().numpy()
        np.testing.assert_array_equal(stored, expected)
        assert times == pytest.approx(np.arange(11) / RATE_HZ)
    # What no part shows is left out; the last time is the end.
    assert found["steady.mp4"][1] == pytest.approx([0.1, 0.2, 0.3, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2])
    assert found["uneven.mkv"][1][:-1] == pytest.approx([0.13, 0.3, 1.21, 1.5])


@pytest.mark.parametrize(("chunk", "room"), [(64, 1 << 26), (4, 100)])
def test_the_same_videos_and_network_give_the_same_bytes(
    source, weights, sharded, tmp_path, monkeypatch, chunk, room
):
    monkeypatch.setattr(shard_video_features, "_CHUNK", chunk)
    monkeypatch.setattr(shard_video_features, "_MEMORY_BYTES", room)
    copy = shutil.copytree(source.parent, tmp_path / "elsewhere") / source.name
    write_features(copy, weights, tmp_path / "out", writing={"workers": 5})
    assert files_of(tmp_path / "out") == files_of(sharded)


def test_few_frames_are_in_memory(source, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_video_features, "_CHUNK", 3)
    seen = []
    extract = GridNetwork.extract

    def counted(self, pictures):
        seen.append(len(pictures))
        return extract(self, pictures)

    monkeypatch.setattr(GridNetwork, "extract", counted)
    write_features(source, weights, tmp_path / "out")
    assert max(seen) == 3
    assert sum(seen) == 10 * len(ROWS) + 8 + 4  # each frame once


def test_shards_are_about_as_large_as_told(source, weights, tmp_path):
    for size in (50_000, 200_000):
        write_features(source, weights, tmp_path / str(size), writing={"shard_bytes": size})
        found = sorted(path.stat().st_size for path in (tmp_path / str(size)).glob("train-*.tar"))
        assert found[-1] < 1.5 * size
        assert len(found) < 15


def test_only_what_has_changed_is_made_again(source, weights, sharded, own):
    count = len([*own.glob("*.tar")])
    assert write_features(source, weights, own).kept == count
    (own / "val-000000.tar").unlink()
    assert write_features(source, weights, own).kept == count - 1
    assert files_of(own) == files_of(sharded)
    assert write_features(source, weights, own, {"image_resize": "pad"}).kept == 0
    assert write_features(source, weights, own, stills_rate_hz=5).kept == 0


def test_an_interrupted_run_goes_on(source, weights, sharded, tmp_path, monkeypatch):
    make = shard_video_features.VideoFeatureFiles._make

    def stop(self, item):
        if item.path.name == "v9.npy":
            raise KeyboardInterrupt
        return make(self, item)

    monkeypatch.setattr(shard_video_features.VideoFeatureFiles, "_make", stop)
    with pytest.raises(KeyboardInterrupt):
        write_features(source, weights, tmp_path / "out", writing={"workers": 1})
    begun = len([*(tmp_path / "out").glob("*.tar")])
    assert begun
    assert not (tmp_path / "out/index.json").exists()
    monkeypatch.undo()
    assert write_features(source, weights, tmp_path / "out").kept == begun
    assert files_of(tmp_path / "out") == files_of(sharded)


def test_bad_videos_are_errors_or_left_out(tmp_path, weights):
    source = write_corpus(tmp_path / "files")
    (source.parent / "v1.npy").write_bytes(b"")
    cut_off(write_video(source.parent / "cut.mkv", "ffv1", count=20, size=(96, 64)), 0.6)
    with source.open("a") as table:
        table.write("v0.npy,anna,wave,train,3,\ncut.mkv,hugo,sit down,test,,\n")
    with pytest.raises(DataError, match=r"3 of 15 videos cannot be used:") as caught:
        write_features(source, weights, tmp_path / "out")
    for problem in (
        r"v0\.npy: the part from 3 s on begins after the end",
        r"v1\.npy: cannot be read as an array",
        r"cut\.mkv: broken from 1\.\d+ s on",
        r"leave them out with --data\.on_bad_video quarantine",
    ):
        assert re.search(problem, str(caught.value))
    options = {"on_bad_video": "quarantine", "max_bad_share": 0.6}
    written = write_features(source, weights, tmp_path / "out", **options)
    assert (written.samples, written.left_out) == (14, 3)
    assert {"v0.npy", "v1.npy", "cut.mkv"} & samples_of(tmp_path / "out").keys() == set()
    # Or what there is of a video is taken.
    options["broken_tail"] = "cut"
    written = write_features(source, weights, tmp_path / "cut", **options)
    assert (written.samples, written.left_out) == (15, 2)
    loaded = []
    for data in (
        module(source, cache_features=True, cache_dir=str(tmp_path), **options),
        features(tmp_path / "cut", tmp_path),
    ):
        data.setup("test")
        data.show_to(*shown(weights))
        loaded.append(batches(data, "test"))
    assert_equal(*loaded)


# Trained from.


@pytest.mark.parametrize(
    "model",
    [
        {"sampling": "segment", "mixup": 0.4},
        {"sampling": "dense", "frame_rate_hz": 7.0, "clips": 3, "class_weights": "balanced"},
    ],
)
def test_training_is_that_of_cached_features(
    source, weights, sharded, tmp_path, make_trainer, model
):
    cached = module(source, cache_features=True, cache_dir=str(tmp_path / "cached"), seed=3)
    task, losses, metrics = fit(cached, weights, make_trainer, model)
    stored = features(
        shutil.copytree(sharded, tmp_path / "moved"), tmp_path / "stored", seed=3, num_workers=1
    )
    again, found, scores = fit(stored, weights, make_trainer, model)
    assert found == losses
    assert scores == metrics
    assert_equal_weights(task, again, rtol=0, atol=0)
    assert stored.class_names == cached.class_names
    for role in SPLITS:
        for epoch in (0, 1):
            assert_equal(batches(stored, role, epoch), batches(cached, role, epoch))
    assert not [*(tmp_path / "stored").glob("f*-*")]  # neither frames nor features


def test_validation_videos_are_trained_on_where_told(source, weights, sharded, tmp_path):
    loaded = []
    for data in (
        module(source, cache_features=True, cache_dir=str(tmp_path), train_on_val=True),
        features(sharded, tmp_path, train_on_val=True),
    ):
        data.setup("fit")
        data.show_to(*shown(weights))
        loaded.append(batches(data, "train"))
    assert_equal(*loaded)
    assert sum(len(batch.indices) for batch in loaded[0]) == 11 + len(of_split("val"))


def test_all_frames_show_what_the_first_one_shows_as_from_files(source, weights, tmp_path):
    model = {"image_resize": "foreground"}
    write_features(source, weights, tmp_path / "out", model)
    loaded = []
    for data in (
        module(source, cache_features=True, cache_dir=str(tmp_path)),
        features(tmp_path / "out", tmp_path),
    ):
        data.setup("fit")
        data.show_to(*shown(weights, **model))
        loaded.append(batches(data, "train"))
    assert_equal(*loaded)


class Alone:
    """The network of a task, without a trainer."""

    def __init__(self, task):
        self.task = task

    def feature_origin(self):
        return self.task.feature_origin()

    def cached_features(self, frames, cache):
        del cache
        return [torch.from_numpy(array) for array in self.task.compute_features(frames)]


def shown(weights, **model):
    """Return what a task shows a data module."""
    task = with_backbone(backbone_weights=weights, **model).eval()
    task.load_initial_weights()
    return task.preparation, task.sampling, Alone(task)


def test_features_come_from_a_url_shard_by_shard(sharded, weights, tmp_path, make_trainer):
    options = {"shard_window": 1, "batch_size": 2}
    local = features(sharded, tmp_path / "local", **options)
    _, losses, _ = fit(local, weights, make_trainer)
    sizes = sorted(path.stat().st_size for path in sharded.glob("*.tar"))
    room = sum(sizes[-2:]) + 1000
    with in_memory(sharded) as url:
        remote = features(
            url, tmp_path / "remote", shard_cache_gb=room / 1e9, num_workers=1, **options
        )
        _, found, _ = fit(remote, weights, make_trainer)
        assert found == losses
        kept = [path.stat().st_size for path in (tmp_path / "remote/shards").glob("*.tar")]
        assert 0 < sum(kept) <= room


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(sharded, weights, tmp_path, make_trainer):
    def run(steps, name, workers, **resume):
        torch.manual_seed(1)
        saving = ModelCheckpoint(tmp_path / name, "{step}", every_n_train_steps=3, save_top_k=-1)
        fitting = make_trainer(
            max_steps=steps, callbacks=[saving], enable_checkpointing=True, limit_val_batches=0
        )
        data = features(sharded, tmp_path, batch_size=2, shard_window=2, num_workers=workers)
        task = with_backbone(backbone_weights=weights, dropout=0.2, mixup=0.4)
        fitting.fit(task, data, weights_only=True, **resume)
        return task

    whole = run(8, "whole", 0)
    run(5, "killed", 2)
    resumed = run(8, "resumed", 1, ckpt_path=tmp_path / "killed/step=3.ckpt")
    assert_equal_weights(whole, resumed, rtol=0, atol=0)


def test_ranks_get_equal_shares_of_all(sharded, weights, tmp_path, monkeypatch):
    shares = []
    for rank in range(2):
        monkeypatch.setattr(samplers, "current_rank", lambda rank=rank: (rank, 2))
        data = features(sharded, tmp_path, batch_size=2, shard_window=2)
        data.setup("fit")
        data.show_to(*shown(weights))
        shares.append(batches(data, "train", 1))
    assert len(shares[0]) == len(shares[1]) == 3
    rows = torch.cat([batch.indices for share in shares for batch in share])
    assert sorted(rows.tolist()) == list(range(11))


def test_a_checkpoint_predicts_from_files(source, sharded, weights, tmp_path, make_trainer):
    found = []
    for data in (
        features(sharded, tmp_path / "stored"),
        module(source, cache_features=True, cache_dir=str(tmp_path / "cached")),
    ):
        torch.manual_seed(1)
        fitting = make_trainer(max_steps=3, max_epochs=-1, limit_val_batches=0)
        fitting.fit(with_backbone(backbone_weights=weights), data)
        fitting.save_checkpoint(tmp_path / "x.ckpt")
        [scores] = make_trainer().test(
            with_backbone(), data, ckpt_path=tmp_path / "x.ckpt", verbose=False
        )
        predictor = seq2seq.load(tmp_path / "x.ckpt", "cpu")
        assert predictor.task.stills_rate_hz == RATE_HZ
        paths = sorted(map(str, source.parent.glob("v*.npy")))
        predictions = predictor.predict_chunk(paths, predictor.task.decoding)
        found.append((scores, [(best.text, best.score) for best, *_ in predictions]))
    assert found[0] == found[1]


def test_only_the_rows_that_are_wanted_are_read(sharded, tmp_path, monkeypatch):
    shards = Shards(str(sharded), "video features", tmp_path, 1.0, None)
    path = next(iter(shards.samples("test"))).path
    whole = shards.read_array(path, "npy")
    read = []
    ranges = type(shards._store).read_ranges

    def counted(self, file, places):
        read.append(sum(size for _, size in places))
        return ranges(self, file, places)

    monkeypatch.setattr(type(shards._store), "read_ranges", counted)
    rows = shards.read_rows(path, "npy", np.array([7, 2, 2, 9, 7]))
    np.testing.assert_array_equal(rows, whole[[7, 2, 2, 9, 7]])
    assert sum(read) <= whole[:3].nbytes + 1024


def test_every_array_can_be_read_beforehand(sharded, own, tmp_path):
    findings = read_all(features(sharded, tmp_path).iter_readings())
    assert [finding.problem for finding in findings] == [None] * 16
    for shard in own.glob("test-*.tar"):
        shard.write_bytes(shard.read_bytes().replace(b"NUMPY", b"NUMPI"))
    data = features(own, tmp_path)
    found = [finding for finding in read_all(data.iter_readings()) if finding.problem]
    assert [finding.name for finding in found] == ["test/0/v10.npy", "test/1/v11.npy"]
    assert "its array is damaged" in found[0].problem
    data.setup("test")
    with pytest.raises(DataError, match=r"test-0\d+\.tar: v1[01]\.npy: its array is damaged"):
        batches(data, "test")


# What does not fit.


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"image_size": 40, "image_resize": "pad"}, r"image_size 32 \(now 40\), image_resize squ"),
        ({"image_mean": [0.5, 0.5, 0.5]}, r"way: image_mean \[0\.485, .*\] \(now \[0\.5, 0\.5, "),
        (
            {"frame_network": "resnet18", "backbone_layer": "layer1", "backbone_weights": None},
            r"backbone mobilenet_v3_small \(now resnet18\), backbone_layer features\.3 \(now lay",
        ),
        ({"backbone_layer": "features.2"}, r"backbone_layer features\.3 \(now features\.2\)"),
        ({"backbone_weights": None}, r"another way: the weights of the backbone\. Set these --mod"),
    ],
)
def test_features_of_another_network_are_refused(
    sharded, weights, tmp_path, make_trainer, model, message
):
    task = with_backbone(**{"backbone_weights": weights, **model})
    with pytest.raises(ConfigError, match=message):
        make_trainer(max_steps=1).fit(task, features(sharded, tmp_path))


def test_features_at_another_rate_are_refused(sharded, tmp_path):
    message = r"--data\.stills_rate_hz 10, and now it is 12\.5\. Set it to 10, or run seq2seq-prep"
    with pytest.raises(ConfigError, match=message):
        features(sharded, tmp_path, stills_rate_hz=12.5).prepare_data()


def test_features_are_read_as_features_only(sharded, tmp_path):
    message = r"holds features of videos, .*--data\.cache_features true\. .*or give shards of vid"
    with pytest.raises(ConfigError, match=message):
        features(sharded, tmp_path, cache_features=False).prepare_data()
    source = write_videos(tmp_path / "files")
    write(videos(source), tmp_path / "out")
    message = r"holds videos, and --data\.cache_features would keep all .*seq2seq-prepare writes th"
    with pytest.raises(ConfigError, match=message):
        features(tmp_path / "out", tmp_path).prepare_data()


def test_shards_of_features_are_not_put_into_shards_again(sharded, tmp_path):
    with pytest.raises(ConfigError, match=r"has shards already"):
        write(features(sharded, tmp_path), tmp_path / "out")


def test_a_video_of_one_frame_is_stored(tmp_path, weights):
    write_array(tmp_path / "v0.npy", 0, count=1)
    rows = ["path,label", "v0.npy,wave", "v1.npy,sit"]
    write_array(tmp_path / "v1.npy", 1)
    (tmp_path / "videos.csv").write_text("\n".join(rows) + "\n")
    write_features(tmp_path / "videos.csv", weights, tmp_path / "out", num_classes=2)
    assert len(samples_of(tmp_path / "out")["v0.npy"][0]) == 1
