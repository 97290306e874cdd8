import io
import json
import shutil
import signal
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from toy_captions import VOCAB, captioner, module, write_corpus, write_weights
from toy_shards import assert_equal, batches, files_of, in_memory, videos, write

from datamodules import CaptionDataModule, shard_writer
from datamodules.check import read_all
from datamodules.shard_features import FeatureFiles
from datamodules.shard_plan import ShardItem
from seq2seq.callbacks import SampleLogger
from seq2seq.errors import ConfigError, DataError
from seq2seq.search import SearchOptions

SPLITS = ("train", "val", "test")
SHARD_BYTES = 5_200  # two pictures, or one that is mirrored, too


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(write_weights(tmp_path_factory.mktemp("weights") / "backbone.pt"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("captions"))


def write_features(root, weights, output, model=None, workers=2, **options):
    """Write the features of the pictures of a folder into shards."""
    task = captioner(backbone_weights=weights, **(model or {}))
    task.load_initial_weights()
    data = module(root, cache_features=True, **options)
    task.show(data)
    return write(data, output, shard_bytes=SHARD_BYTES, workers=workers)


@pytest.fixture(scope="module")
def sharded(root, weights, tmp_path_factory):
    """Return a folder of shards of features, mirrored ones too; it must be left as it is."""
    output = tmp_path_factory.mktemp("sharded")
    assert write_features(root, weights, output, flip=True).shards == 9
    return output


@pytest.fixture
def own(sharded, tmp_path):
    """Return a copy of it, which may be damaged."""
    return shutil.copytree(sharded, tmp_path / "own")


def features(source, cache, **options):
    """Return a data module of features in shards."""
    defaults = {"vocabulary": "word", "vocab_size": VOCAB, "batch_size": 4, "eval_batch_size": 2}
    options = {**defaults, "cache_features": True, "cache_dir": str(cache), **options}
    return CaptionDataModule(str(source), format="shards", **options)


class Losses(Callback):
    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, *_):
        self.found.append(trainer.callback_metrics["train/loss"].item())


def fit(data, weights, make_trainer, **options):
    """Return a captioner after some steps, their losses, and its metrics of validation."""
    torch.manual_seed(1)
    losses = Losses()
    fitting = make_trainer(max_steps=4, callbacks=[losses], **options)
    task = captioner(backbone_weights=weights, dropout=0.2)
    fitting.fit(task, data)
    metrics = {name: value.item() for name, value in fitting.callback_metrics.items()}
    return task, losses.found, metrics


# What is written.


def test_shards_have_the_features_of_each_picture(root, weights, sharded):
    task = captioner(backbone_weights=weights).eval()
    task.load_initial_weights()
    found = 0
    for shard in sharded.glob("*.tar"):
        with tarfile.open(shard) as tar:
            content = {member.name: tar.extractfile(member).read() for member in tar}
        for key in {name.partition(".")[0] for name in content}:
            known = json.loads(content[f"{key}.json"])
            picture = task.load_item(str(root / "images" / known["name"])).unsqueeze(0)
            views = {"npy": picture, "mirrored.npy": picture.flip(3)}
            if not shard.name.startswith("train"):
                del views["mirrored.npy"]
            assert {name for name in content if name.startswith(key)} == {
                f"{key}.{ending}" for ending in ("json", *views)
            }
            for ending, view in views.items():
                stored = np.load(io.BytesIO(content[f"{key}.{ending}"]))
                assert stored.dtype == np.float16
                assert stored.shape == task.feature_shape
                expected = task.encoder.extract(view)[0]
                # What is mirrored before it is scaled differs in the last bit of some pixels.
                torch.testing.assert_close(
                    torch.from_numpy(stored).float(), expected, atol=0.02, rtol=0.02
                )
                found += 1
    assert found == 2 * 6 + 3 + 2


def test_the_same_pictures_and_network_give_the_same_bytes(root, weights, sharded, tmp_path):
    copy = shutil.copytree(root, tmp_path / "elsewhere")
    write_features(copy, weights, tmp_path / "out", workers=5, flip=True)
    assert files_of(tmp_path / "out") == files_of(sharded)


def test_only_what_has_changed_is_made_again(root, weights, own):
    assert write_features(root, weights, own, flip=True).kept == 9
    (own / "val-000000.tar").unlink()
    before = (own / "index.json").read_bytes()
    assert write_features(root, weights, own, flip=True).kept == 8
    assert (own / "index.json").read_bytes() == before
    assert write_features(root, weights, own).kept == 0
    assert write_features(root, weights, own, {"image_resize": "pad"}).kept == 0


def test_an_interrupted_run_goes_on(root, weights, sharded, tmp_path, monkeypatch):
    make = FeatureFiles.make

    def stop(self, items):
        if items[0].split != "train":
            raise KeyboardInterrupt
        return make(self, items)

    monkeypatch.setattr(FeatureFiles, "make", stop)
    with pytest.raises(KeyboardInterrupt):
        write_features(root, weights, tmp_path / "out", workers=1, flip=True)
    assert not (tmp_path / "out/index.json").exists()
    monkeypatch.undo()
    assert write_features(root, weights, tmp_path / "out", flip=True).kept == 6
    assert files_of(tmp_path / "out") == files_of(sharded)


@pytest.fixture
def hears_ctrl_c():
    # A shell lets what it runs in the background ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_does_not_wait_for_the_shard(root, weights, tmp_path, monkeypatch):
    made, is_interrupted = [], threading.Event()
    make = FeatureFiles.make

    def make_slowly(self, items):
        for contents in make(self, items):
            made.append(items[0].split)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            assert is_interrupted.wait(60)
            yield contents

    class Pool(ThreadPoolExecutor):
        def shutdown(self, *arguments, **options):
            is_interrupted.set()
            super().shutdown(*arguments, **options)

    monkeypatch.setattr(FeatureFiles, "make", make_slowly)
    monkeypatch.setattr(shard_writer, "ThreadPoolExecutor", Pool)
    with pytest.raises(KeyboardInterrupt):
        write_features(root, weights, tmp_path / "out", workers=1)
    assert made == ["train"]
    assert not [*(tmp_path / "out").glob("*.tar")]
    assert not [*(tmp_path / "out").glob(".*.partial")]


def test_bad_pictures_are_left_out(root, weights, tmp_path):
    own = shutil.copytree(root, tmp_path / "own")
    (own / "images/val/1.png").write_bytes(b"")
    options = {"on_bad_picture": "quarantine", "max_bad_share": 0.1}
    assert write_features(own, weights, tmp_path / "out", **options).samples == 10


def test_few_features_are_in_memory(root, weights, monkeypatch):
    task = captioner(backbone_weights=weights)
    seen = []
    extract = task.encoder.extract
    monkeypatch.setattr(
        task.encoder, "extract", lambda pictures: seen.append(len(pictures)) or extract(pictures)
    )
    items = [
        ShardItem("train", path, path.name, (), path.stat)
        for path in sorted((root / "images").rglob("*.png"))
    ]
    made = FeatureFiles(task, task.geometry, flip=False).make(items)
    next(made)
    assert sum(seen) == 4
    assert len([*made]) == len(items) - 1


# Trained from.


@pytest.mark.parametrize("flip", [False, True])
def test_training_is_that_of_cached_features(root, weights, sharded, tmp_path, make_trainer, flip):
    cached = module(root, cache_features=True, flip=flip, cache_dir=str(tmp_path / "cached"))
    task, losses, metrics = fit(cached, weights, make_trainer)
    # In shards there are no pictures any more.
    stored = features(shutil.copytree(sharded, tmp_path / "moved"), tmp_path / "stored", flip=flip)
    again, found, scores = fit(stored, weights, make_trainer)
    assert found == losses
    assert scores == metrics
    for name, value in task.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    for role in SPLITS:
        for epoch in (0, 1):
            assert_equal(batches(stored, role, epoch), batches(cached, role, epoch))
    assert not [*(tmp_path / "stored").glob("features-*")]


def test_features_come_from_a_url_shard_by_shard(sharded, weights, tmp_path, make_trainer):
    options = {"shard_window": 1, "batch_size": 2}
    local = features(sharded, tmp_path / "local", **options)
    _, losses, _ = fit(local, weights, make_trainer)
    with in_memory(sharded) as url:
        remote = features(url, tmp_path / "remote", shard_cache_gb=22e-6, num_workers=1, **options)
        _, found, _ = fit(remote, weights, make_trainer)
        assert found == losses
        assert_equal(batches(remote, "test"), batches(local, "test"))
        kept = [path.stat().st_size for path in (tmp_path / "remote/shards").glob("*.tar")]
        assert 0 < sum(kept) <= 22_000  # two shards


def test_shards_of_pictures_have_their_features_cached(root, weights, tmp_path, make_trainer):
    write(module(root), tmp_path / "pictures")
    cached = module(root, cache_features=True, cache_dir=str(tmp_path / "cached"))
    stored = features(tmp_path / "pictures", tmp_path / "stored")
    _, losses, metrics = fit(cached, weights, make_trainer)
    assert fit(stored, weights, make_trainer)[1:] == (losses, metrics)
    assert_equal(batches(stored, "test"), batches(cached, "test"))
    assert len([*(tmp_path / "stored").glob("features-*")]) == 3


def test_a_checkpoint_is_tested_on_features_in_shards(sharded, weights, tmp_path, make_trainer):
    fitting = make_trainer(max_steps=2, limit_val_batches=0)
    fitting.fit(captioner(backbone_weights=weights), features(sharded, tmp_path))
    fitting.save_checkpoint(tmp_path / "x.ckpt")
    task = captioner()  # so other weights until the checkpoint is read
    [scores] = make_trainer().test(
        task, features(sharded, tmp_path), ckpt_path=tmp_path / "x.ckpt", verbose=False
    )
    assert scores["test/loss"] > 0


# Where a picture would be wanted.


def test_there_is_no_picture_to_draw_on(sharded, weights, tmp_path, make_trainer, capsys):
    logger = TensorBoardLogger(tmp_path, name=None, version="")
    data, task = features(sharded, tmp_path), captioner(backbone_weights=weights)
    task.load_initial_weights()
    make_trainer(logger=logger, callbacks=[SampleLogger(2)]).validate(task, data, verbose=False)
    assert capsys.readouterr().out.count("\n") >= 2  # captions are shown
    assert data.look_up("val", 1) is None
    [batch, _] = data.val_dataloader()
    [[prediction], _] = task.predict_batch(batch, SearchOptions(return_attention=True))
    assert task.figure(batch.example(0), prediction) is None


def test_every_array_can_be_read_beforehand(sharded, own, tmp_path):
    findings = read_all(features(sharded, tmp_path).iter_readings())
    assert [finding.problem for finding in findings] == [None] * 11
    shard = own / "val-000000.tar"
    shard.write_bytes(shard.read_bytes().replace(b"NUMPY", b"NUMPI"))
    found = [item for item in read_all(features(own, tmp_path).iter_readings()) if item.problem]
    assert [item.name for item in found] == ["val/0/val/0.png", "val/1/val/1.png"]
    assert "its array is damaged" in found[0].problem


def test_a_folder_of_pictures_is_predicted_all_the_same(root, sharded, tmp_path, make_trainer):
    data = features(sharded, tmp_path, predict=str(root / "images/test"))
    assert len(make_trainer().predict(captioner(), data)[0]) == 2


# What does not fit.


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"image_size": 40, "image_resize": "pad"},
            r"image_size 32 \(now 40\), image_res",
        ),
        (
            {"image_mean": [0.5, 0.5, 0.5]},
            r"way: image_mean \[0\.485, .*\] \(now \[0\.5, 0\.5, 0\.5\]\)\. S",
        ),
        (
            {"backbone": "resnet18", "backbone_layer": "layer1"},
            r"backbone mobilenet_v3_sm",
        ),
        ({"backbone_weights": None}, r"another way: the weights of the backbone\. Set these --mod"),
    ],
)
def test_features_of_another_network_are_refused(
    sharded, weights, tmp_path, make_trainer, model, message
):
    if "backbone" not in model:
        model = {"backbone_weights": weights, **model}
    with pytest.raises(ConfigError, match=message):
        make_trainer(max_steps=1).fit(captioner(**model), features(sharded, tmp_path))


def test_features_are_read_as_features_only(sharded, tmp_path):
    message = r"holds features of pictures, .*--data\.cache_features true\. .*or give shards of pic"
    with pytest.raises(ConfigError, match=message):
        features(sharded, tmp_path, cache_features=False).prepare_data()
    with pytest.raises(DataError, match=r"holds features, where videos are needed"):
        videos(sharded, format="shards", cache_dir=str(tmp_path))


def test_features_of_mirrored_pictures_have_to_be_there(root, weights, tmp_path):
    write_features(root, weights, tmp_path / "plain")
    message = r"no features of mirrored pictures\. Set --data\.flip to false, or run seq2seq-prep"
    with pytest.raises(ConfigError, match=message):
        features(tmp_path / "plain", tmp_path, flip=True).prepare_data()


def test_shards_of_features_are_not_put_into_shards_again(sharded, tmp_path):
    data = features(sharded, tmp_path)
    with pytest.raises(ConfigError, match=r"has shards already"):
        write(data, tmp_path / "out")


def test_an_index_without_its_network_is_damaged(own, tmp_path):
    index = json.loads((own / "index.json").read_text())
    del index["features"]
    (own / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"index\.json is damaged \('features'\)"):
        features(own, tmp_path).prepare_data()
