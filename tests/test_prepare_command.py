import pkgutil
import re
import shutil

import numpy as np
import pytest
import yaml
from command_line import seq2seq
from fsspec.implementations.memory import MemoryFileSystem
from toy_captions import BACKBONE, VOCAB, write_corpus, write_weights
from toy_clips import RATE_HZ
from toy_clips import write_corpus as write_videos
from toy_reviews import write_splits as write_reviews
from toy_shards import SHARD_BYTES, files_of, in_memory, write
from toy_shards import pictures as read_pictures
from toy_shards import videos as read_videos
from toy_translation import write_splits as write_pairs

from datamodules import CaptionDataModule, ReviewDataModule, TranslationDataModule
from seq2seq.errors import ConfigError, DataError
from seq2seq.prepare import main, run


@pytest.fixture
def root(tmp_path):
    return write_corpus(tmp_path / "corpus")


def recipe(folder, kind, model=None, **options):
    config = {"data": {"class_path": kind, "init_args": options}, "run_dir": "runs/x"}
    if model is not None:
        config["model"] = model
    config["trainer"] = {"max_epochs": 3}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"seed_everything": 1, **config}))
    return str(path)


def test_a_recipe_is_prepared_and_read(root, tmp_path, capsys):
    captions = {"captions": str(root / "captions.csv"), "images": str(root / "images")}
    model = {"class_path": "Captioner", "init_args": {"hidden_size": 8}}
    options = {"vocabulary": "word", "vocab_size": VOCAB, **captions}
    config = recipe(tmp_path, "CaptionDataModule", model, **options)
    output = str(tmp_path / "out")
    written = run(["--config", config, "--output", output, "--shard_mb", str(SHARD_BYTES / 1e6)])
    assert capsys.readouterr().out == (
        "11 samples in 6 shards, 0 of them kept from an earlier run; 0 bad files left out.\n"
        f"Read them with --data CaptionDataModule --data.format shards --data.captions {output}.\n"
    )
    write(read_pictures(root), tmp_path / "same")
    assert written.shards == 6
    assert files_of(tmp_path / "out") == files_of(tmp_path / "same")


def test_what_is_wrong_with_the_output_is_found_before_the_work(root, tmp_path, monkeypatch):
    captions = {"captions": str(root / "captions.csv"), "images": str(root / "images")}
    config = recipe(tmp_path, "CaptionDataModule", **captions)
    work = []
    monkeypatch.setattr(CaptionDataModule, "prepare_data", lambda _: work.append(1))
    with pytest.raises(ConfigError, match=r"in shards already: leave it out, or give a recipe"):
        run(["--config", config, "--output", str(tmp_path / "out"), "--data.format", "shards"])
    with pytest.raises(DataError, match=r"nosuch://bucket/x: Protocol not known.*Give a folder"):
        run(["--config", config, "--output", "nosuch://bucket/x"])

    def out_of_reach(*_):
        raise OSError("no route to host")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", out_of_reach)
    with pytest.raises(DataError, match=r"memory://out/index\.json: cannot be read \(no route"):
        run(["--config", config, "--output", "memory://out"])
    assert not work


def test_data_and_model_are_built_once(root, tmp_path, monkeypatch):
    weights = str(write_weights(tmp_path / "weights.pt"))
    config = captioning_recipe(root, tmp_path, {"backbone_weights": weights})
    built = []
    init = CaptionDataModule.__init__
    monkeypatch.setattr(
        CaptionDataModule, "__init__", lambda self, *a, **b: built.append(init(self, *a, **b))
    )
    run(["--config", config, "--output", str(tmp_path / "out")])
    assert len(built) == 1


COUNTS = {"train_count": 10, "val_count": 2, "test_count": 1}
GENERATED = {"MotionDataModule": COUNTS, "ShapesDataModule": {**COUNTS, "vocab_size": 9}}


@pytest.mark.parametrize("kind", GENERATED)
def test_generated_data_is_generated_first(tmp_path, capsys, kind):
    config = recipe(tmp_path, kind, root=str(tmp_path / "data"), **GENERATED[kind])
    output = str(tmp_path / "out")
    assert run(["--config", config, "--output", output]).samples == 13
    reader, option = {
        "MotionDataModule": ("VideoDataModule", "source"),
        "ShapesDataModule": ("CaptionDataModule", "captions"),
    }[kind]
    assert capsys.readouterr().out.endswith(
        f"Read them with --data {reader} --data.format shards --data.{option} {output}.\n"
    )


def test_shards_of_generated_data_are_read(tmp_path):
    config = recipe(tmp_path, "MotionDataModule", root=str(tmp_path / "clips"), **COUNTS)
    run(["--config", config, "--output", str(tmp_path / "out")])
    data = read_videos(tmp_path / "out", format="shards", num_classes=10)
    [batch] = data.test_dataloader()
    assert batch.references == (("glide left",),)
    assert np.ptp(batch.inputs.frames.numpy()) > 0


def status_of(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["seq2seq-prepare", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return stop.code
    return 0


def test_the_exit_status_tells_what_was_wrong(tmp_path, monkeypatch, capsys):
    source = write_videos(tmp_path / "files")
    arguments = ["--data", "VideoDataModule", "--data.source", source, "--data.num_classes", 3]
    arguments += ["--data.stills_rate_hz", RATE_HZ, "--output", tmp_path / "out"]
    assert status_of(monkeypatch, *arguments) == 0
    assert status_of(monkeypatch, *arguments, "--data.num_classes", 5) == 1
    assert "Set --data.num_classes=3." in capsys.readouterr().err
    assert status_of(monkeypatch, *arguments, "--shard_mb", 0, "--workers", 0) == 2
    assert "--shard_mb is 0.0: set it to more" in (shown := capsys.readouterr().err)
    assert "--workers is 0: set it to 1 or more" in shown
    assert status_of(monkeypatch, *arguments, "--colour", "red") == 2
    assert status_of(monkeypatch) == 2
    assert "nothing to prepare: give a --config" in capsys.readouterr().err


# Features.


def captioning_recipe(root, folder, model=(), **options):
    captions = {"captions": str(root / "captions.csv"), "images": str(root / "images")}
    network = {"backbone": BACKBONE, "backbone_layer": "features.3", "image_size": 32}
    model = {"class_path": "Captioner", "init_args": {**network, **dict(model)}}
    sizes = {"vocabulary": "word", "vocab_size": VOCAB, "cache_features": True}
    return recipe(folder, "CaptionDataModule", model, **sizes, **captions, **options)


def test_features_of_a_recipe_are_prepared(root, tmp_path, capsys):
    weights = str(write_weights(tmp_path / "weights.pt"))
    config = captioning_recipe(root, tmp_path, {"backbone_weights": weights})
    output = str(tmp_path / "out")
    assert run(["--config", config, "--output", output]).samples == 11
    assert capsys.readouterr().out.endswith(
        "Read them with --data CaptionDataModule --data.format shards --data.cache_features true "
        f"--data.captions {output}.\n"
    )
    assert run(["--config", config, "--output", output, "--workers", "5"]).kept == 3


def test_features_need_a_trained_and_frozen_network(root, tmp_path):
    output = ["--output", str(tmp_path / "out")]
    config = captioning_recipe(root, tmp_path, {"backbone_weights": None})
    with pytest.raises(ConfigError, match=r"no weights, .*Set --model\.backbone_weights or"):
        run(["--config", config, *output])
    weights = str(write_weights(tmp_path / "weights.pt"))
    model = {"backbone_weights": weights, "fine_tune_from": "features.3"}
    config = captioning_recipe(root, tmp_path, model)
    with pytest.raises(ConfigError, match=r"--model\.fine_tune_from would change"):
        run(["--config", config, *output])
    assert not (tmp_path / "out").exists()


def video_recipe(folder, model, **options):
    network = {"frame_network": BACKBONE, "backbone_layer": "features.3", "image_size": 32}
    model = {"class_path": "VideoClassifier", "init_args": {**network, **model}}
    options = {"num_classes": 3, "stills_rate_hz": RATE_HZ, "cache_features": True, **options}
    return recipe(folder, "VideoDataModule", model, **options)


def test_features_of_videos_are_prepared_and_trained_from(tmp_path, capsys):
    source = str(write_videos(tmp_path / "files"))
    weights = {"backbone_weights": str(write_weights(tmp_path / "weights.pt"))}
    output = str(tmp_path / "out")
    config = video_recipe(tmp_path, weights, source=source)
    assert run(["--config", config, "--output", output]).samples == 12
    assert capsys.readouterr().out.endswith(
        "Read them with --data VideoDataModule --data.format shards --data.cache_features true "
        f"--data.source {output}.\n"
    )
    assert run(["--config", config, "--output", output, "--workers", "1"]).kept == 3
    shutil.rmtree(tmp_path / "files")
    read = ["--data.format", "shards", "--data.source", output, "--data.cache_dir", "cache"]
    short = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]
    outcome = seq2seq(tmp_path, "fit", "--config", config, *read, *short)
    assert outcome.status == 0, outcome.errors
    assert (tmp_path / "runs/x/last.ckpt").exists()


@pytest.mark.parametrize(
    ("kind", "name", "wanted"),
    [
        ("VideoDataModule", None, r"the VideoClassifier of a recipe makes of videos, .* no model"),
        ("VideoDataModule", "Captioner", r"makes of videos, and here is a Captioner\. Give a rec"),
        ("CaptionDataModule", "VideoClassifier", r"the Captioner .* of pictures, .*VideoClassif"),
    ],
)
def test_features_need_a_model_for_the_data(tmp_path, kind, name, wanted):
    model = None if name is None else {"class_path": name}
    sizes = {"source": "x", "num_classes": 3} if kind == "VideoDataModule" else {"captions": "x"}
    if name == "Captioner":
        model["init_args"] = {"vocab_size": 9}
    if name == "VideoClassifier":
        model["init_args"] = {"num_classes": 3}
        sizes["images"] = "x"
    config = recipe(tmp_path, kind, model, cache_features=True, **sizes)
    with pytest.raises(ConfigError, match=wanted):
        run(["--config", config, "--output", str(tmp_path / "out")])


def test_features_of_a_network_of_our_own_are_not_put_into_shards(tmp_path):
    source = str(write_videos(tmp_path / "files"))
    config = video_recipe(tmp_path, {"frame_network": "small"}, source=source)
    with pytest.raises(ConfigError, match=r"Name one as --model\.frame_network, without --model\."):
        run(["--config", config, "--output", str(tmp_path / "out")])


# What is not put into shards.


@pytest.mark.parametrize(
    ("write_files", "kind", "options"),
    [
        (write_pairs, TranslationDataModule, {"vocab_size": 40}),
        (write_reviews, ReviewDataModule, {"vocab_size": 14, "num_classes": 2}),
    ],
)
def test_text_is_prepared_in_the_cache(tmp_path, capsys, write_files, kind, options):
    source = str(write_files(tmp_path / "files"))
    options["cache_dir"] = str(tmp_path / "cache")
    name = "root" if kind is TranslationDataModule else "source"
    config = recipe(tmp_path, kind.__name__, **{name: source}, **options)
    assert run(["--config", config]) is None
    assert capsys.readouterr().out == (
        f"The data of the {kind.__name__} lies ready in {tmp_path / 'cache'}, where runs with the "
        "same --data options find it; --data.cache_dir chooses another place.\n"
    )
    data = kind(source, **options)
    data.setup("fit")  # which makes nothing
    assert len(list(data.train_dataloader())) > 0


def test_generated_text_is_generated_and_prepared(tmp_path, capsys):
    counts = {"train_count": 90, "val_count": 2, "test_count": 1, "vocab_size": 60}
    config = recipe(tmp_path, "DatesDataModule", root=str(tmp_path / "dates"), **counts)
    assert run(["--config", config]) is None
    cache = tmp_path / "dates/.seq2seq_cache"
    assert f"lies ready in {cache}, " in capsys.readouterr().out
    assert [*cache.glob("corpus-*")]


@pytest.mark.parametrize("kind", GENERATED)
def test_without_an_output_pictures_and_videos_are_prepared_as_they_are(tmp_path, capsys, kind):
    options = {"root": str(tmp_path / "data"), **GENERATED[kind]}
    config = recipe(tmp_path, kind, **options)
    assert run(["--config", config]) is None
    cache = tmp_path / "data/.seq2seq_cache"
    assert capsys.readouterr().out == (
        f"The {kind} is prepared. What it keeps on disk goes to {cache}, where runs with the same "
        "--data options find it; --data.cache_dir chooses another place. Frames and features are "
        "made when training begins; shards are written with --output.\n"
    )
    data = pkgutil.resolve_name(f"datamodules.{kind}")(**options)
    data.setup("fit")  # which makes nothing


def test_shards_are_prepared_without_an_output(root, tmp_path):
    write(read_pictures(root), tmp_path / "out")
    cache = tmp_path / "cache"
    options = {"format": "shards", "vocabulary": "word", "vocab_size": VOCAB}
    with in_memory(tmp_path / "out") as url:
        config = recipe(
            tmp_path, "CaptionDataModule", captions=url, cache_dir=str(cache), **options
        )
        assert run(["--config", config]) is None
    assert len([*cache.glob("shards/*.jsonl")]) == 3  # their tables


def test_series_have_nothing_to_prepare_but_are_checked(tmp_path, capsys):
    assert run(["--config", recipe(tmp_path, "SineDataModule", train_waves=2)]) is None
    assert capsys.readouterr().out == (
        "A SineDataModule keeps nothing on disk: there is nothing to prepare.\n"
    )
    config = recipe(tmp_path, "SeriesDataModule", source=str(tmp_path / "none.csv"))
    with pytest.raises(DataError, match=r"none\.csv"):
        run(["--config", config, "--data.num_channels", "1", "--data.horizon", "2"])


@pytest.mark.parametrize("kind", ["DatesDataModule", "SineDataModule"])
def test_what_is_not_put_into_shards_takes_no_output(tmp_path, kind):
    config = recipe(tmp_path, kind)
    message = f"--output is for shards, into which a {kind} puts nothing: .*--data.cache_dir"
    with pytest.raises(ConfigError, match=re.compile(message)):
        run(["--config", config, "--output", "out"])
