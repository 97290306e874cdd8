import numpy as np
import pytest

from datamodules.review_files import find_reviews
from datamodules.review_formats import Layout, Review
from seq2seq.errors import DataError

LAYOUT = Layout("text", "label", None, ";", {"0": "bad", "1": "good"}, {"train": "train"})
ROWS = {"train": [[1, 5, 2], [], [7]], "test": [[3, 3]]}
LABELS = {"train": [0, 1, 0], "test": [1]}


def read(path):
    return list(find_reviews(path, LAYOUT))


def flat():
    arrays = {}
    for split, rows in ROWS.items():
        arrays[f"x_{split}"] = np.concatenate([np.array(row, dtype=np.int32) for row in rows])
        arrays[f"x_{split}_offsets"] = np.cumsum([0, *map(len, rows)])
        arrays[f"y_{split}"] = np.array(LABELS[split])
    return arrays


def padded(on_left):
    arrays = {f"y_{split}": np.array(labels) for split, labels in LABELS.items()}
    for split, rows in ROWS.items():
        zeros = [[0] * (4 - len(row)) for row in rows]
        parts = zip(zeros, rows, strict=True) if on_left else zip(rows, zeros, strict=True)
        arrays[f"x_{split}"] = np.array([first + last for first, last in parts], dtype=np.uint16)
    return arrays


@pytest.mark.parametrize("arrays", [flat(), padded(True), padded(False)])
def test_arrays_are_texts_of_numbers(tmp_path, arrays):
    np.savez_compressed(tmp_path / "r.npz", **arrays)
    assert read(tmp_path / "r.npz") == [
        Review("1 5 2", ("bad",), "train", "r.npz: x_train[0]"),
        Review("", ("good",), "train", "r.npz: x_train[1]"),
        Review("7", ("bad",), "train", "r.npz: x_train[2]"),
        Review("3 3", ("good",), "test", "r.npz: x_test[0]"),
    ]


def test_arrays_that_need_pickle_are_refused_and_their_conversion_works(tmp_path, monkeypatch):
    arrays = {f"y_{split}": np.array(labels) for split, labels in LABELS.items()}
    for split, rows in ROWS.items():
        arrays[f"x_{split}"] = np.array([*rows, None], dtype=object)[:-1]
    np.savez(tmp_path / "imdb.npz", **arrays)
    with pytest.raises(DataError, match=r"imdb\.npz: holds Python objects.*any code") as raised:
        read(tmp_path / "imdb.npz")
    _, _, program = str(raised.value).partition(":\n")
    monkeypatch.chdir(tmp_path)
    exec("\n".join(line[2:] for line in program.splitlines()))
    np.savez(tmp_path / "same.npz", **flat())
    assert [review[:3] for review in read(tmp_path / "flat.npz")] == [
        review[:3] for review in read(tmp_path / "same.npz")
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": None}, r"no array x_train; there are x_train_offsets, y_train, x_test"),
        ({"y_test": None}, r"x_test has no labels\. Add them as y_test"),
        ({"y_train": np.array([0, 1])}, r"x_train has 3 texts, y_train has 2 labels"),
        ({"y_train": np.array([0.5, 1, 0])}, r"y_train has 1 dimensions and the type float64"),
        ({"x_train_offsets": np.array([0, 3, 2, 4])}, r"x_train_offsets must rise from 0 to 4"),
        ({"x_train_offsets": np.array([0, 3, 3, 5])}, r"x_train_offsets must rise from 0 to 4"),
        ({"x_test_offsets": None}, r"x_test has 1 dimensions .*in 2, or add x_test_offsets"),
        ({"x_test": np.array([3, -3])}, r"x_test has -3\. Number words from 1 on"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, changes, message):
    arrays = {name: array for name, array in (flat() | changes).items() if array is not None}
    np.savez(tmp_path / "r.npz", **arrays)
    with pytest.raises(DataError, match=r"r\.npz: " + message):
        read(tmp_path / "r.npz")


@pytest.mark.parametrize("content", [b"no zip", b"PK\x03\x04 cut", b""])
def test_a_damaged_array_file_is_named(tmp_path, content):
    np.save(tmp_path / "one.npy", np.arange(3))
    (tmp_path / "r.npz").write_bytes(content or (tmp_path / "one.npy").read_bytes())
    with pytest.raises(DataError, match=r"r\.npz: cannot be read \(it is not an \.npz\)"):
        read(tmp_path / "r.npz")
