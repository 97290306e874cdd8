import itertools
import random

import pytest

from datamodules.caption_files import (
    CaptionedPicture,
    check_disjoint,
    pictures_of,
    split_pictures,
)
from seq2seq.errors import DataError


def captioned(folder, count, split=None):
    return [
        CaptionedPicture(folder / f"{row % 3}" / f"{row // 2}.jpg", ("one",), split, f"x:{row}")
        for row in range(count)
    ]


SHARES = {"train": 0.7, "val": 0.2, "test": 0.1}


def test_a_split_has_every_picture_once(tmp_path):
    pictures = captioned(tmp_path, 60)
    splits = split_pictures(pictures, SHARES, seed=3)
    assert {name: len(chosen) for name, chosen in splits.items()} == {
        "train": 42,
        "val": 12,
        "test": 6,
    }
    assert sorted(itertools.chain(*splits.values())) == sorted(pictures)
    check_disjoint(splits)


def test_a_split_depends_on_names_and_seed_alone(tmp_path):
    pictures = captioned(tmp_path, 60)
    splits = split_pictures(pictures, SHARES, seed=3)
    shuffled = random.Random(1).sample(pictures, k=60)
    assert split_pictures(shuffled, SHARES, seed=3) == splits
    assert split_pictures(pictures, SHARES, seed=4) != splits
    moved = split_pictures(captioned(tmp_path / "elsewhere", 60), SHARES, seed=3)
    for name, chosen in splits.items():
        assert [picture.place for picture in chosen] == [picture.place for picture in moved[name]]


def test_entries_of_one_picture_stay_together(tmp_path):
    pictures = [
        CaptionedPicture(tmp_path / f"{row % 8}", (f"{row}",), None, "") for row in range(40)
    ]
    splits = split_pictures(pictures, {"train": 0.5, "val": 0.5}, seed=1)
    assert [len(chosen) for chosen in splits.values()] == [20, 20]
    check_disjoint(splits)


def test_no_split_is_empty(tmp_path):
    with pytest.raises(DataError, match=r"3 pictures are too few .*--data\.val_share or"):
        split_pictures(captioned(tmp_path, 3), SHARES, seed=1)


def test_splits_are_chosen_by_name_and_joined(tmp_path):
    train, val, rest = (captioned(tmp_path, 2, name) for name in ("train", "val", "restval"))
    pictures = [*train, *val, *rest]
    assert pictures_of(pictures, "val") == val
    assert pictures_of(pictures, "train+restval") == [*train, *rest]
    with pytest.raises(DataError, match=r"no split 'dev'; .* names: train, val, restval\."):
        pictures_of(pictures, "train+dev")


def test_a_picture_in_two_splits_is_found_under_any_name(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    first = CaptionedPicture(tmp_path / "a.jpg", ("one",), None, "x:1")
    other = CaptionedPicture(tmp_path / "link.jpg", ("one",), None, "y:2")
    check_disjoint({"train": [first, other], "val": []})
    with pytest.raises(DataError, match=r"two splits \(1\): .*a\.jpg \(train: x:1; val: y:2\)\."):
        check_disjoint({"train": [first], "val": [other]})


def test_pictures_in_two_splits_are_listed_up_to_a_limit(tmp_path):
    pictures = captioned(tmp_path, 12)
    with pytest.raises(DataError, match=r"two splits \(12\): .*, and 2 more\. Leave each in one"):
        check_disjoint({"train": pictures, "test": pictures})
