import csv
from collections import Counter

import numpy as np
import pytest
import torch
from command_line import seq2seq
from test_configs import CONFIGS

from datamodules.check import read_all
from datamodules.motion import FRAMES, LABELS, SIZE, MotionDataModule, draw_frames, generate_clip
from seq2seq.batches import VideoInput
from seq2seq.encoders.frames import SmallNetwork
from seq2seq.encoders.video import VideoEncoder
from seq2seq.errors import ConfigError, DataError
from seq2seq.pictures import PictureGeometry
from seq2seq.tokenizers import FIRST_LABEL_ID
from seq2seq.videos import ClipSampling
from seq2seq.videos.frames import FramePreparation

LIGHTS = [("flash", "dark"), ("dark", "flash")]
MOVES = [label for label in LABELS if label not in LIGHTS]
# Pixels to the right and down from each frame to the next.
STEPS = {
    ("glide", "left"): (-2, 0),
    ("glide", "right"): (2, 0),
    ("glide", "up"): (0, -2),
    ("glide", "down"): (0, 2),
    ("dash", "left"): (-6, 0),
    ("dash", "right"): (6, 0),
    ("dash", "up"): (0, -6),
    ("dash", "down"): (0, 6),
}


def clip(label, seed):
    return generate_clip(label, np.random.default_rng(seed))


def module(root, **options):
    counts = {"train_count": 30, "val_count": 7, "test_count": 4, "batch_size": 5}
    return MotionDataModule(str(root), **counts | options)


def written(root):
    """Return all files but those of the cache, and their content."""
    paths = [*root.glob("*.*"), *root.glob("*/*.npy")]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if path.is_file()}


# Only the order tells.


@pytest.mark.parametrize("seed", range(5))
def test_the_frames_are_the_same_whatever_the_label(seed):
    bags = [sorted(frame.tobytes() for frame in clip(label, seed)) for label in LABELS]
    assert all(bag == bags[0] for bag in bags)
    assert len(set(bags[0])) == FRAMES
    assert len({clip(label, seed).tobytes() for label in LABELS}) == len(LABELS)


def test_the_average_over_frames_cannot_tell_labels_apart():
    torch.manual_seed(1)
    network = SmallNetwork(1, [0.5], [0.25], [8, 16])
    encoder = VideoEncoder(network, None, memory_size=7)
    clips = np.stack([clip(label, seed=3) for label in LABELS])
    frames = torch.from_numpy(clips)[:, None, :, None]
    summaries = encoder(VideoInput(frames, torch.full((len(LABELS), 1), FRAMES))).summary
    torch.testing.assert_close(summaries, summaries[:1].expand_as(summaries))


@pytest.mark.parametrize("verb", ["glide", "dash"])
@pytest.mark.parametrize(("there", "back"), [("left", "right"), ("up", "down")])
def test_the_opposite_is_the_same_backwards(verb, there, back):
    assert np.array_equal(clip((verb, there), 4), clip((verb, back), 4)[::-1])


# What is seen.


def movement(label, seeds=range(3)):
    """Return by how much clips best match themselves a frame later, moved right and down."""
    total = np.zeros((SIZE, SIZE))
    for seed in seeds:
        content = clip(label, seed).astype(float)
        content -= np.median(content, axis=(1, 2), keepdims=True)  # the light
        content -= content.mean(axis=0)  # what is always there
        spectrum = np.fft.fft2(content)
        total += np.fft.ifft2(spectrum[1:] * spectrum[:-1].conj()).real.sum(axis=0)
    down, right = np.unravel_index(total.argmax(), total.shape)
    return tuple(int((shift + SIZE // 2) % SIZE - SIZE // 2) for shift in (right, down))


@pytest.mark.parametrize("label", MOVES)
def test_a_shape_moves_steadily_as_the_label_says(label):
    assert movement(label) == STEPS[label]


def places_of_lights(frames):
    """Return which frames are the three lightest, and the three darkest."""
    order = np.median(frames, axis=(1, 2)).argsort()
    return sorted(order[-3:].tolist()), sorted(order[:3].tolist())


@pytest.mark.parametrize("label", LIGHTS)
def test_each_light_comes_at_one_go_in_the_order_of_the_label(label):
    starts = set()
    for seed in range(30):
        flash, dark = places_of_lights(clip(label, seed))
        assert [place - flash[0] for place in flash] == [0, 1, 2]
        assert [place - dark[0] for place in dark] == [0, 1, 2]
        assert (flash[0] < dark[0]) == (label == ("flash", "dark"))
        starts.add((flash[0], dark[0]))
    assert len(starts) > 15


@pytest.mark.parametrize("label", [("glide", "left"), ("dash", "down")])
def test_where_a_shape_moves_the_lights_tell_nothing(label):
    found = [places_of_lights(clip(label, seed)) for seed in range(60)]
    flash_first = sum(flash[0] < dark[0] for flash, dark in found)
    assert 15 < flash_first < 45
    assert sum(flash[2] - flash[0] == 2 for flash, _ in found) < 10


def test_where_lights_tell_the_shapes_jump_about():
    for seed in range(20):
        bag = draw_frames(np.random.default_rng(seed))
        frames = clip(LIGHTS[0], seed)[:, None]
        columns = (frames == bag.frames).all(axis=(2, 3)).argmax(axis=1)
        for places in (columns, bag.rows[columns]):
            _, counts = np.unique(np.diff(places) % FRAMES, return_counts=True)
            assert counts.max() < FRAMES // 2


# Files.


def test_each_label_is_as_frequent_as_any_in_every_split(tmp_path):
    module(tmp_path, train_count=40, val_count=20, test_count=10).prepare_data()
    with (tmp_path / "clips.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    counts = Counter((row["split"], row["label"]) for row in rows)
    for split, count in (("train", 4), ("val", 2), ("test", 1)):
        assert all(counts[split, " ".join(label)] == count for label in LABELS)
    assert len({(tmp_path / row["path"]).read_bytes() for row in rows}) == 70


def test_generation_is_deterministic(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        module(tmp_path / name, seed=seed).prepare_data()
    first, second, other = (written(tmp_path / name) for name in "abc")
    assert first == second
    assert first.keys() == other.keys()
    assert not {name for name in first if name != "clips.csv" and first[name] == other[name]}


def test_files_are_made_anew_only_for_other_settings(tmp_path):
    module(tmp_path).prepare_data()
    before = (tmp_path / "clips.csv").stat().st_mtime_ns
    module(tmp_path, label_steps=2, num_classes=8, batch_size=3).prepare_data()
    assert (tmp_path / "clips.csv").stat().st_mtime_ns == before
    module(tmp_path, test_count=3).prepare_data()
    assert (tmp_path / "clips.csv").stat().st_mtime_ns != before
    assert len(list((tmp_path / "test").iterdir())) == 3


@pytest.mark.parametrize("name", ["clips.csv", "train/clip-00029.npy", "settings.json"])
def test_a_deleted_file_is_made_anew(tmp_path, name):
    module(tmp_path).prepare_data()
    before = written(tmp_path)
    assert len(before) == 30 + 7 + 4 + 2
    (tmp_path / name).unlink()
    module(tmp_path).prepare_data()
    assert written(tmp_path) == before


# As data.


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("motion")


def batch_of(data, stage, loader):
    data.prepare_data()
    data.setup(stage)
    sampling = ClipSampling("uniform", clip_frames=FRAMES)
    data.show_to(FramePreparation(PictureGeometry(SIZE, "squash"), channels=1), sampling, None)
    return next(iter(getattr(data, loader)()))


@pytest.mark.parametrize("cache_frames", [False, True])
def test_a_batch_has_all_frames_in_their_order(root, cache_frames):
    data = module(root, cache_frames=cache_frames)
    batch = batch_of(data, "fit", "val_dataloader")
    assert batch.inputs.frames.shape == (7, 1, FRAMES, 1, SIZE, SIZE)
    for index, frames in zip(batch.indices.tolist(), batch.inputs.frames, strict=True):
        stored = np.load(root / "val" / f"clip-{index:05}.npy")
        assert np.array_equal(frames[0, :, 0].numpy(), stored)


def test_a_pair_of_words_is_one_label(root):
    data = module(root)
    batch = batch_of(data, "fit", "train_dataloader")
    assert data.class_names == tuple(sorted(map(" ".join, LABELS)))
    for index, target in zip(batch.indices.tolist(), batch.target.tolist(), strict=True):
        label = LABELS[index % len(LABELS)]
        assert [data.class_names[i - FIRST_LABEL_ID] for i in target] == [" ".join(label)]


def test_each_word_is_a_label_if_there_are_two_steps(root):
    data = module(root, label_steps=2, num_classes=8)
    batch = batch_of(data, "fit", "train_dataloader")
    assert data.class_names == ("dark", "dash", "down", "flash", "glide", "left", "right", "up")
    for index, target in zip(batch.indices.tolist(), batch.target.tolist(), strict=True):
        label = LABELS[index % len(LABELS)]
        assert [data.class_names[i - FIRST_LABEL_ID] for i in target] == list(label)


def test_the_test_clips_are_there_to_be_predicted(root):
    batch = batch_of(module(root), "predict", "predict_dataloader")
    stored = np.stack([np.load(path) for path in sorted((root / "test").iterdir())])
    assert np.array_equal(batch.inputs.frames[:, 0, :, 0].numpy(), stored)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"label_steps": 3}, r"--data\.label_steps=3 cannot be"),
        ({"label_steps": 2}, r"--data\.num_classes=10: .*label_steps=2 there are 8 labels"),
        ({"num_classes": 8}, r"--data\.num_classes=8: .*label_steps=1 there are 10 labels"),
        ({"train_count": 9}, r"--data\.train_count=9: training needs a clip of each label, 10"),
        ({"val_count": 0}, r"--data\.val_count and .* must be 1 or more, and 100,000 or less"),
        ({"train_count": 100_000}, r"--data\.train_count, .* must be 1 or more, and 100,000"),
    ],
)
def test_options_that_cannot_work_are_named(tmp_path, options, match):
    with pytest.raises(ConfigError, match=match):
        module(tmp_path, **options)


def test_a_root_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/motion: the clips .*Set --data\.root"):
        module(tmp_path / "file" / "motion").prepare_data()


# What is learned.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "least", "most"), [("motion", 0.85, 1), ("motion_average", 0, 0.2)]
)
def test_a_shortened_recipe_learns_the_order_and_its_baseline_does_not(
    tmp_path, recipe, least, most
):
    config = CONFIGS / "video" / f"{recipe}.yaml"
    quiet = ("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu")
    outcome = seq2seq(
        *(tmp_path, "fit", "--config", str(config), "--trainer.max_epochs", "3", *quiet)
    )
    assert outcome.status == 0, outcome.errors
    assert least <= best_accuracy(tmp_path / "runs" / recipe) <= most


def best_accuracy(folder):
    checkpoint = torch.load(folder / "best.ckpt", weights_only=True)
    [callback] = [
        state
        for name, state in checkpoint["callbacks"].items()
        if "ModelCheckpoint" in name and state.get("best_model_score") is not None
    ]
    return float(callback["best_model_score"])


def test_the_check_of_the_files_writes_them_first(tmp_path):
    data = module(tmp_path / "new")
    found = read_all(data.iter_readings())
    assert len(found) == sum(data.counts.values())
    assert all(finding.problem is None for finding in found)
