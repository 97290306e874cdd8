import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy_clips import (
    CLASSES,
    RATE_HZ,
    ROWS,
    SAMPLING,
    SIZE,
    brightness,
    module,
    of_split,
    shown,
    write_array,
    write_corpus,
)

from datamodules.clip_augmentation import ClipAugmentation
from seq2seq.errors import ConfigError, DataError
from seq2seq.feature_cache import FeatureArray, feature_folder, feature_settings, write_features
from seq2seq.tokenizers import FIRST_LABEL_ID
from seq2seq.videos import ClipSampling

SPLITS = ("train", "val", "test")
DENSE = ClipSampling("dense", clip_frames=4, frame_rate_hz=RATE_HZ, clips=3)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("videos"))


def loader(data, role):
    return getattr(data, f"{role}_dataloader")()


def examples(data, role, epoch=0):
    """Return for each video of a split its clips, target and reference."""
    batches = loader(data, role)
    batches.set_epoch(epoch)
    found = {}
    for batch in batches:
        frames, lengths = batch.inputs
        assert lengths.shape == frames.shape[:2]
        assert (lengths == frames.shape[2]).all()
        for row, index in enumerate(batch.indices.tolist()):
            assert index not in found
            found[index] = frames[row], batch.target[row], batch.references[row]
    return [found[index] for index in range(len(found))]


def seen(clips):
    """Return the brightness of the right half of each frame, in lists of a clip each."""
    assert clips.dtype == torch.uint8
    return clips[:, :, 0, 0, -1].tolist()


# What a batch has.


def test_a_batch_has_clips_labels_and_positions(source):
    data = shown(source)
    for role in SPLITS:
        for number, (clips, target, references) in zip(
            of_split(role), examples(data, role), strict=True
        ):
            assert clips.shape == (1, 5, 1, SIZE, SIZE)
            assert seen(clips) == [[brightness(number, frame) for frame in (1, 3, 5, 7, 9)]]
            label = ROWS[number][1]
            assert target.tolist() == [FIRST_LABEL_ID + CLASSES.index(label)]
            assert references == (label,)


def test_the_labels_are_the_vocabulary_and_are_counted(source):
    data = shown(source)
    assert data.class_names == CLASSES
    assert data.tokenizers["target"].names == CLASSES
    assert data.label_counts().tolist() == [2, 3, 2]


def test_training_has_one_clip_of_each_video_and_evaluation_all(source):
    data = shown(source, DENSE, channels=3)
    for clips, *_ in examples(data, "train"):
        assert clips.shape == (1, 4, 3, SIZE, SIZE)
    for number, (clips, *_) in zip(of_split("val"), examples(data, "val"), strict=True):
        expected = [[brightness(number, first + n) for n in range(4)] for first in (0, 3, 6)]
        assert clips.shape == (3, 4, 3, SIZE, SIZE)
        assert seen(clips) == expected


def test_batches_hold_so_many_videos(source):
    data = shown(source)
    assert sorted(len(batch.indices) for batch in loader(data, "train")) == [1, 3, 3]
    assert [batch.indices.tolist() for batch in loader(data, "val")] == [[0, 1], [2]]


def test_a_video_may_have_several_labels_and_several_parts(tmp_path):
    for number in range(3):
        write_array(tmp_path / f"v{number}.npy", number)
    rows = [
        ("v0.npy", "pick up; red box", 0, 0.4, "train"),
        ("v0.npy", "put down; red box", 0.5, "", "train"),
        ("v1.npy", "pick up; cup", "", 99, "train"),
        ("v2.npy", "put down; cup", 0.2, 0.6, "val"),
    ]
    with (tmp_path / "parts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "start", "end", "split"), *rows])
    data = shown(tmp_path / "parts.csv", ClipSampling(clip_frames=2), num_classes=4, label_steps=2)
    assert data.class_names == ("cup", "pick up", "put down", "red box")
    assert data.label_counts().tolist() == [1, 2, 1, 2]
    found = [*examples(data, "train"), *examples(data, "val")]
    assert [seen(clips) for clips, *_ in found] == [[[1, 3]], [[6, 8]], [[12, 17]], [[23, 25]]]
    assert found[1][2] == ("put down;red box",)
    assert [target.tolist() for _, target, _ in found] == [[5, 7], [6, 7], [5, 4], [6, 4]]
    with pytest.raises(DataError, match=r"labels than 1 \(4\): parts\.csv:2 \(2: 'pick up', 'red"):
        module(tmp_path / "parts.csv", num_classes=4).prepare_data()


# Splits and classes.


def test_validation_videos_join_training_when_asked(tmp_path):
    data = shown(write_corpus(tmp_path), train_on_val=True)
    seen = {label for batch in data.train_dataloader() for [label] in batch.references}
    count = sum(len(batch.indices) for batch in data.train_dataloader())
    assert count == len(of_split("train")) + len(of_split("val"))
    assert seen == set(CLASSES)
    assert sum(len(batch.indices) for batch in data.val_dataloader()) == len(of_split("val"))


def test_groups_can_be_moved_to_validation(tmp_path):
    source = write_corpus(tmp_path, with_split=False)
    data = shown(source, val_groups=["ben", "dora"])
    numbers = [number for number, row in enumerate(ROWS) if row[0] in ("ben", "dora")]
    assert [seen(clips)[0][0] for clips, *_ in examples(data, "val")] == [
        brightness(number, 1) for number in numbers
    ]
    with pytest.raises(
        DataError, match=r"test split has no videos\. .*--data\.test_share above 0\."
    ):
        loader(data, "test")
    shared = shown(source, val_share=0.2, test_share=0.3, seed=3)
    assert sum(len(examples(shared, role)) for role in SPLITS) == len(ROWS)


def test_another_number_of_classes_is_refused_with_the_right_one(source):
    data = module(source, num_classes=4)
    for step in (data.prepare_data, lambda: data.setup("fit")):
        with pytest.raises(DataError, match=r"have 3 labels, not 4\. Set --data\.num_classes=3\."):
            step()


# Random choices of training.


def test_random_choices_depend_on_seed_epoch_and_index_alone(source):
    sampling = ClipSampling("segment", clip_frames=4)

    def clips(epoch, **options):
        data = shown(
            source,
            sampling,
            augmentation=ClipAugmentation(crop_scale=0.5, brightness=0.3),
            **options,
        )
        return torch.stack([clips for clips, *_ in examples(data, "train", epoch)])

    first = clips(2)
    assert torch.equal(first, clips(2, batch_size=2, num_workers=1))
    assert not torch.equal(first, clips(3))
    assert not torch.equal(first, clips(2, seed=5))


def test_clips_are_mirrored_in_training_only_and_only_when_told(source):
    data = shown(source, augmentation=ClipAugmentation(flip=True))
    plain = [clips for clips, *_ in examples(shown(source), "train")]
    is_mirrored = []
    for epoch in range(6):
        for (clips, *_), expected in zip(examples(data, "train", epoch), plain, strict=True):
            is_mirrored.append(torch.equal(clips, expected.flip(-1)))
            assert is_mirrored[-1] or torch.equal(clips, expected)
    assert 10 < sum(is_mirrored) < 32
    for number, (clips, *_) in zip(of_split("val"), examples(data, "val"), strict=True):
        assert seen(clips)[0][0] == brightness(number, 1)


# Frames and features that are kept.


def test_kept_frames_give_the_same_batches(tmp_path):
    source = write_corpus(tmp_path)
    for sampling in (SAMPLING, DENSE, ClipSampling("segment", 3, clips=2)):
        plain, kept = (shown(source, sampling, cache_frames=on) for on in (False, True))
        for role in SPLITS:
            pairs = zip(examples(plain, role, 1), examples(kept, role, 1), strict=True)
            assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)
    assert len([*(tmp_path / ".seq2seq_cache").glob("frames-*")]) == 3


class Extractor:
    """Makes two cells of three channels of each frame."""

    def extract(self, pictures):
        means = pictures.float().mean(dim=(1, 2))  # (batch, width)
        return torch.stack([means[:, :3], means[:, -3:]], dim=1)

    def fingerprint(self):
        return "0" * 32


def cached(pictures, cache):
    settings = feature_settings(Extractor(), {}, pictures)
    folder = feature_folder(cache, settings)
    write_features(folder, Extractor(), pictures, settings, torch.device("cpu"))
    return FeatureArray(folder, settings)


def test_features_of_frames_are_kept(tmp_path):
    data = shown(write_corpus(tmp_path), DENSE, cache_features=True)
    plain = [clips for clips, *_ in examples(data, "val")]
    data._network = SimpleNamespace(cached_features=cached)
    for (features, *_), clips in zip(examples(data, "val"), plain, strict=True):
        assert features.shape == (3, 4, 2, 3)  # clips, time, cells, channels
        assert features.dtype == torch.float16
        expected = Extractor().extract(clips.flatten(0, 1)).view(3, 4, 2, 3)
        assert torch.equal(features.float(), expected)


# Prediction.


def test_a_video_or_those_of_a_folder_are_predicted(source):
    for predict, numbers in ((source.parent / "v3.npy", [3]), (source.parent, [0, 1, 10, 11, 2])):
        data = shown(source, predict=str(predict))
        batches = list(data.predict_dataloader())
        assert all(batch.target is None and batch.references == () for batch in batches)
        firsts = [first for batch in batches for first in batch.inputs.frames[:, 0, 0, 0, 0, -1]]
        assert firsts[:5] == [brightness(number, 1) for number in numbers]
        indices = torch.cat([batch.indices for batch in batches])
        assert indices.tolist() == list(range(len(firsts)))


def test_nothing_to_predict_is_an_error(source, tmp_path):
    with pytest.raises(ConfigError, match=r"nothing to classify: set --data\.predict"):
        shown(source).predict_dataloader()
    with pytest.raises(DataError, match=r"has no videos\. Set --data\.predict to a folder"):
        shown(source, predict=str(tmp_path)).predict_dataloader()


# Options.


def test_options_that_cannot_work_are_named_together():
    options = {
        "num_classes": 1,
        "label_steps": 0,
        "decode_threads": 0,
        "stills_rate_hz": 0.0,
        "max_bad_share": -0.1,
        "format": "pdf",
        "broken_tail": "glue",
        "on_bad_video": "cry",
        "val_share": 1.0,
    }
    with pytest.raises(ConfigError) as caught:
        module("videos.csv", **options)
    assert all(f"--data.{option}" in str(caught.value) for option in options)
    assert str(caught.value).startswith("The data options cannot work:\n  - ")


def test_features_cannot_be_kept_of_changing_clips():
    with pytest.raises(
        ConfigError, match=r"--data\.cache_features keeps .* leave the options of --data\.augm"
    ):
        module("videos.csv", cache_features=True, augmentation=ClipAugmentation(rotate_degrees=5))


def test_the_default_frames_are_those_of_files(source):
    data = module(source)
    data.prepare_data()
    data.setup("test")
    [batch, *_] = data.test_dataloader()
    assert batch.inputs.frames.shape == (2, 1, 16, 3, 224, 224)
    assert np.unique(batch.inputs.frames[0, 0, 0, :, 9, -1]).tolist() == [brightness(10, 0)]
