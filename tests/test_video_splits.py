from pathlib import Path

import pytest

from datamodules.video_files import labels_of, split_videos
from datamodules.video_formats import VideoEntry
from seq2seq.errors import ConfigError, DataError


def entries(*rows):
    """Return entries, each of ``name label group split``; a split of ``-`` is none."""
    found = []
    for number, row in enumerate(rows, start=2):
        name, label, group, split = row.split()
        known = None if split == "-" else split
        place = f"clips.csv:{number}"
        labels = tuple(label.split(";"))
        found.append(VideoEntry(Path(name), labels, 0.0, None, group, known, place))
    return found


def names(splits):
    return {split: [entry.path.name for entry in found] for split, found in splits.items()}


# Ten people of one to four videos each, 23 in all, in turns.
PEOPLE = sorted(
    entries(
        *(
            f"{person}{take} x {person} -"
            for n, person in enumerate("abcdefghij")
            for take in range(1 + n % 4)
        )
    ),
    key=lambda entry: entry.path.name[::-1],
)


def test_splits_of_the_source_stay():
    found = entries("1 x a test", "2 x b train", "3 x c val", "4 x b train", "5 x c val")
    assert names(split_videos(found)) == {"train": ["2", "4"], "val": ["3", "5"], "test": ["1"]}


def test_without_splits_and_shares_all_is_training():
    assert split_videos(PEOPLE) == {"train": PEOPLE, "val": [], "test": []}


@pytest.mark.parametrize("seed", range(8))
def test_a_group_is_in_one_split_only(seed):
    splits = split_videos(PEOPLE, val_share=0.2, test_share=0.3, seed=seed)
    groups = [{entry.group for entry in found} for found in splits.values()]
    assert sum(map(len, groups)) == 10
    assert set.union(*groups) == set("abcdefghij")
    # Groups have up to four entries: no more than three are too many.
    assert 5 <= len(splits["val"]) <= 8
    assert 7 <= len(splits["test"]) <= 10
    for found in splits.values():
        assert found == [entry for entry in PEOPLE if entry in found]


def test_videos_without_groups_are_divided_to_the_share():
    found = entries(*(f"{n} x {n} -" for n in range(20)))
    sizes = {
        split: len(part)
        for split, part in split_videos(found, val_share=0.15, test_share=0.25).items()
    }
    assert sizes == {"train": 12, "val": 3, "test": 5}


def test_the_seed_decides_and_not_the_order():
    def chosen(found, seed):
        return {entry.group for entry in split_videos(found, val_share=0.3, seed=seed)["val"]}

    assert chosen(PEOPLE, 3) == chosen(PEOPLE[::-1], 3)
    assert len({frozenset(chosen(PEOPLE, seed)) for seed in range(9)}) > 3


def test_the_test_does_not_change_with_the_validation():
    test = split_videos(PEOPLE, test_share=0.3)["test"]
    assert split_videos(PEOPLE, test_share=0.3, val_share=0.2)["test"] == test


def test_what_the_source_does_not_name_comes_out_of_training():
    found = entries(*(f"{n} x {n} {'test' if n < 4 else 'train'}" for n in range(14)))
    splits = split_videos(found, val_share=0.2)
    assert splits["test"] == found[:4]
    assert [len(splits["train"]), len(splits["val"])] == [8, 2]


def test_people_are_taken_out_of_training():
    found = entries("1 x a train", "2 x b train", "3 x c train", "4 x d test", "5 x b train")
    splits = split_videos(found, val_groups=["b", "c"])
    assert names(splits) == {"train": ["1"], "val": ["2", "3", "5"], "test": ["4"]}


def test_people_of_the_validation_are_not_drawn_for_the_test():
    for seed in range(8):
        splits = split_videos(PEOPLE, val_groups=["d"], test_share=0.5, seed=seed)
        assert {entry.group for entry in splits["val"]} == {"d"}
        assert len(splits["val"]) == 4


@pytest.mark.parametrize(
    ("found", "match"),
    [
        (
            ["1 x anna train", "2 x ben train", "3 x anna test"],
            r"Groups in two splits \(1\): anna \(train: clips.csv:2; test: clips.csv:4\)",
        ),
        (
            ["1 x a train", "1 x b val"],
            r"Videos in two splits \(1\): .*/1 \(train: clips.csv:2; val: clips.csv:3\)",
        ),
        (["1 x a test", "2 x b val"], "No video is left for training"),
        (
            ["1 x a train", "2 y b test", "3 x;z c val", "4 y d test"],
            r"training lacks \(2\): 'z' \(val: clips.csv:4\), 'y' \(test: clips.csv:3\)",
        ),
    ],
)
def test_splits_that_prove_nothing_are_named(found, match):
    with pytest.raises(DataError, match=match):
        split_videos(entries(*found))


def test_a_video_of_two_names_is_in_one_split(tmp_path):
    (tmp_path / "1").touch()
    (tmp_path / "2").symlink_to(tmp_path / "1")
    found = [
        entry._replace(path=tmp_path / entry.path) for entry in entries("1 x a train", "2 x b test")
    ]
    with pytest.raises(DataError, match="Videos in two splits"):
        split_videos(found)


def test_a_share_that_leaves_nothing_is_named():
    with pytest.raises(DataError, match=r"No video is left for training\. Lower --data.val_share"):
        split_videos(entries("1 x a -", "2 x a -"), val_share=0.1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"val_share": 1.0}, "--data.val_share=1.0 is not a share"),
        ({"test_share": -0.1}, "--data.test_share=-0.1 is not a share"),
        ({"test_share": float("nan")}, "--data.test_share=nan is not a share"),
        ({"test_share": 0.2}, "--data.test_share=0.2: the source names a test split"),
        ({"val_groups": ["c", "e"]}, "no group 'c', 'e'; it has a, b. Choose"),
        ({"val_groups": ["a"], "val_share": 0.1}, r"val_groups=\['a'\] and --data.val_share=0.1"),
    ],
)
def test_options_that_cannot_work_are_named(options, match):
    with pytest.raises(ConfigError, match=match):
        split_videos(entries("1 x a train", "2 x b train", "3 x c test"), **options)


def test_a_val_split_of_the_source_leaves_no_choice():
    found = entries("1 x a train", "2 x b val")
    with pytest.raises(ConfigError) as error:
        split_videos(found, val_groups=["a"], val_share=0.1)
    assert str(error.value).count("the source names a val split") == 2


def test_labels_are_sorted_and_named_once():
    assert labels_of(entries("1 push;cup a -", "2 cup b -", "3 Lift;cup c -")) == [
        "Lift",
        "cup",
        "push",
    ]
