import json
import os
import pickle
import resource
import shutil
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.caption_dataset import PictureFiles
from seq2seq.encoders.image import ImageEncoder
from seq2seq.errors import DataError
from seq2seq.feature_cache import FeatureArray, feature_folder, feature_settings, write_features
from seq2seq.pictures import PictureGeometry

COUNT = 11
CPU = torch.device("cpu")
GEOMETRY = PictureGeometry(32, "squash")


class CountingEncoder(ImageEncoder):
    """Counts the pictures it has looked at."""

    seen = 0

    def extract(self, pictures):
        self.seen += len(pictures)
        return super().extract(pictures)


def make_encoder(kind=CountingEncoder):
    torch.manual_seed(1)
    options = {"image_size": 32, "mean": [0.4] * 3, "std": [0.3] * 3, "memory_size": 7}
    return kind("mobilenet_v3_small", "features.1", **options).eval()


@pytest.fixture
def encoder():
    return make_encoder()


@pytest.fixture
def paths(tmp_path):
    generator = np.random.default_rng(1)
    (tmp_path / "pictures").mkdir()
    found = [tmp_path / "pictures" / f"{number}.png" for number in range(COUNT)]
    for path in found:
        patches = generator.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(patches).resize((40, 36), Image.Resampling.NEAREST).save(path)
    return found


def settings_of(encoder, pictures, **preparation):
    return feature_settings(encoder, {**GEOMETRY.settings(), **preparation}, pictures)


def cached(folder, encoder, paths, is_flipped=False):
    pictures = PictureFiles(paths, GEOMETRY, is_flipped)
    settings = settings_of(encoder, pictures)
    write_features(feature_folder(folder, settings), encoder, pictures, settings, CPU)
    return FeatureArray(feature_folder(folder, settings), settings)


@pytest.mark.parametrize("is_flipped", [False, True])
def test_cached_features_are_those_of_the_network(tmp_path, encoder, paths, is_flipped):
    features = cached(tmp_path, encoder, paths, is_flipped)
    assert len(features) == COUNT
    for place, path in enumerate(paths):
        picture = torch.stack([PictureFiles([path], GEOMETRY, is_flipped)[0]])
        [expected] = encoder.extract(picture)
        assert features[place].dtype == torch.float16
        torch.testing.assert_close(features[place].float(), expected, atol=1e-3, rtol=2e-3)


def test_mirrored_pictures_have_features_of_their_own(tmp_path, encoder, paths):
    plain, mirrored = (cached(tmp_path, encoder, paths, flipped) for flipped in (False, True))
    assert not torch.equal(plain[4], mirrored[4])
    assert len([*tmp_path.glob("features-*")]) == 2


def test_features_are_computed_once(tmp_path, encoder, paths):
    first = cached(tmp_path, encoder, paths)
    assert encoder.seen == COUNT
    second = cached(tmp_path, encoder, paths)
    assert encoder.seen == COUNT
    assert all(torch.equal(first[place], second[place]) for place in range(COUNT))


def test_what_changes_features_changes_their_place(tmp_path, encoder, paths):
    pictures = PictureFiles(paths, GEOMETRY)

    def place(by=encoder, of=pictures, **preparation):
        return feature_folder(tmp_path, settings_of(by, of, **preparation))

    trained = deepcopy(encoder)
    next(trained.backbone.parameters()).data += 0.01
    places = [
        place(),
        place(trained),
        place(crop_share=0.9),
        place(image_mean=[0.4, 0.4, 0.5]),
        place(of=PictureFiles(paths[:-1], GEOMETRY)),
        place(of=PictureFiles(paths[::-1], GEOMETRY)),
        place(of=PictureFiles(paths, GEOMETRY, is_flipped=True)),
    ]
    status = paths[3].stat()
    os.utime(paths[3], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    places.append(place())
    assert len(set(places)) == len(places)


def test_pictures_that_were_moved_keep_their_features(tmp_path, encoder, paths):
    cached(tmp_path, encoder, paths)
    moved = [Path(shutil.copy2(path, tmp_path / path.name)) for path in paths]
    cached(tmp_path, encoder, moved)
    assert encoder.seen == COUNT


# What cannot be used.


def cut(folder):
    content = (folder / "features.npy").read_bytes()
    (folder / "features.npy").write_bytes(content[:-100])


def empty(folder):
    (folder / "features.npy").write_bytes(b"")


def forget(folder):
    (folder / "settings.json").unlink()


def garble(folder):
    (folder / "settings.json").write_text('{"extractor": ')


@pytest.mark.parametrize("damage", [cut, empty, forget, garble])
def test_damaged_features_are_refused(tmp_path, encoder, paths, damage):
    settings = settings_of(encoder, PictureFiles(paths, GEOMETRY))
    cached(tmp_path, encoder, paths)
    folder = feature_folder(tmp_path, settings)
    damage(folder)
    with pytest.raises(DataError, match=r"features-\w+ is damaged .*Delete this folder: it is"):
        FeatureArray(folder, settings)


def test_features_that_another_machine_has_are_missing(tmp_path, encoder, paths):
    settings = settings_of(encoder, PictureFiles(paths, GEOMETRY))
    with pytest.raises(DataError, match=r"is missing\. With several machines, set --data\.cache_"):
        FeatureArray(feature_folder(tmp_path, settings), settings)


def test_features_of_something_else_are_refused(tmp_path, encoder, paths):
    settings = settings_of(encoder, PictureFiles(paths, GEOMETRY))
    cached(tmp_path, encoder, paths)
    folder = feature_folder(tmp_path, settings)
    for name, value in (("extractor", "0" * 32), ("preparation", {}), ("count", 3)):
        with pytest.raises(DataError, match=r"holds features of other pictures, weights or"):
            FeatureArray(folder, {**settings, name: value})
    stored = {**settings, "pictures": "0" * 32}
    (folder / "settings.json").write_text(json.dumps(stored))
    with pytest.raises(DataError, match=r"Delete this folder: it is made anew"):
        FeatureArray(folder, settings)


def test_a_bad_picture_leaves_nothing_behind(tmp_path, encoder, paths):
    paths[7].write_bytes(paths[7].read_bytes()[:60])
    with pytest.raises(DataError, match=r"7\.png: cannot be decoded"):
        cached(tmp_path / "cache", encoder, paths)
    assert not [*(tmp_path / "cache").iterdir()]


def test_a_place_that_cannot_be_written_is_named(tmp_path, encoder, paths):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file: the cache cannot be written .*--data\.cache_d"):
        cached(tmp_path / "file", encoder, paths)


def test_a_disk_without_room_is_an_error(tmp_path, encoder, paths):
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, unlimited[1]))
    try:
        with pytest.raises(DataError, match=r"written \(File too large\)\. .* has room"):
            cached(tmp_path / "cache", encoder, paths)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert not [*(tmp_path / "cache").iterdir()]


def test_of_two_processes_the_first_counts(tmp_path, encoder, paths):
    class Overtaken(CountingEncoder):
        def extract(self, pictures):
            if not self.seen:
                cached(tmp_path, encoder, paths)
            return super().extract(pictures) + 1

    own = make_encoder(Overtaken)
    features = cached(tmp_path, own, paths)
    assert own.seen == encoder.seen == COUNT
    assert torch.equal(features[2], cached(tmp_path, encoder, paths)[2])
    assert len([*tmp_path.glob("features-*")]) == 1
    assert not [*tmp_path.glob(".partial-*")]


# For the workers of a loader.


def test_features_are_pickled_as_their_path(tmp_path, encoder, paths):
    features = cached(tmp_path, encoder, paths)
    pickled = pickle.dumps(features)
    assert len(pickled) < 2000 < features[0].nbytes
    copy = pickle.loads(pickled)
    assert all(torch.equal(copy[place], features[place]) for place in range(COUNT))


def test_what_is_done_to_features_does_not_reach_the_file(tmp_path, encoder, paths):
    features = cached(tmp_path, encoder, paths)
    before = features[5].clone()
    features[5].fill_(0)
    assert torch.equal(features[5], before)


def test_pictures_are_read_while_the_network_works(tmp_path, paths):
    class Slow(CountingEncoder):
        def extract(self, pictures):
            deadline = time.monotonic() + 60
            while len(read) < min(self.seen + 8, COUNT) and time.monotonic() < deadline:
                time.sleep(0.001)
            ahead.append(len(read))
            return super().extract(pictures)

    class Noted(PictureFiles):
        def __getitem__(self, place):
            read.append(place)
            return super().__getitem__(place)

    read, ahead = [], []
    encoder = make_encoder(Slow)
    pictures = Noted(paths, GEOMETRY)
    settings = settings_of(encoder, pictures)
    write_features(feature_folder(tmp_path, settings), encoder, pictures, settings, CPU)
    assert ahead == [8, 11, 11]
    assert sorted(read) == list(range(COUNT))
