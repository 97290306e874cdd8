import csv
import gzip
import json

import pytest
from toy_reviews import write_folders, write_jsonl, write_table

from datamodules.review_files import find_reviews, find_texts
from datamodules.review_formats import Layout, Review
from seq2seq.errors import DataError

NAMES = {"train": "train", "val": "val", "test": "test"}
IMDB = {
    "train/pos/1_9.txt": "Superb.<br />Great!",
    "train/pos/0_8.txt": "Fine",
    "train/neg/0_1.txt": "Dull\nand\r\nweak\n",
    "train/unsup/0_0.txt": "Who knows?",
    "train/urls_pos.txt": "http://reviews",
    "test/neg/0_2.txt": "Poor",
    "test/pos/0_7.txt.gz": "Lovely",
    "README": "Reviews",
}


def layout(text="text", label="label", split=None, separator=";", names=None, splits=NAMES):
    return Layout(text, label, split, separator, names or {}, splits)


def read(path, kind="auto", **options):
    return list(find_reviews(path, layout(**options), kind))


def plain(found):
    return [(review.text, review.labels, review.split) for review in found]


# Folders.


def test_folders_of_classes_in_folders_of_splits_are_read_sorted(tmp_path):
    assert read(write_folders(tmp_path, IMDB)) == [
        Review("Dull and weak", ("neg",), "train", "train/neg/0_1.txt"),
        Review("Fine", ("pos",), "train", "train/pos/0_8.txt"),
        Review("Superb.<br />Great!", ("pos",), "train", "train/pos/1_9.txt"),
        Review("Poor", ("neg",), "test", "test/neg/0_2.txt"),
        Review("Lovely", ("pos",), "test", "test/pos/0_7.txt.gz"),
    ]


def test_a_folder_of_unlabelled_reviews_is_read_only_when_it_is_named(tmp_path):
    write_folders(tmp_path, IMDB)
    names = {"pos": "positive", "neg": "negative"}
    assert {review.labels[0] for review in read(tmp_path, names=names)} == {"positive", "negative"}
    found = plain(read(tmp_path, names={"unsup": "unknown", "neg": "neg"}))
    assert found[1] == ("Who knows?", ("unknown",), "train")
    assert len(found) == 3


def test_class_folders_alone_name_no_split(tmp_path):
    write_folders(tmp_path, {"b/1.txt": "x y", "a/1.txt": "z", ".cache/1.txt": "hidden"})
    assert plain(read(tmp_path)) == [("z", ("a",), None), ("x y", ("b",), None)]


def test_split_folders_may_have_other_names(tmp_path):
    write_folders(tmp_path, {"learn/a/1.txt": "x", "dev/a/1.txt": "y", "test/a/1.txt": "z"})
    found = read(tmp_path, splits={**NAMES, "train": "learn", "val": "dev"})
    assert [review.split for review in found] == ["train", "val", "test"]


def test_a_class_folder_without_reviews_is_an_error(tmp_path):
    write_folders(tmp_path, {"a/1.txt": "x", "b/1.doc": "y", "c/.keep": ""})
    message = r"class folders without reviews \(2\): .*b, .*c\. Add some as \.txt or \.txt\.gz"
    with pytest.raises(DataError, match=message):
        read(tmp_path)
    assert len(read(tmp_path, names={"a": "a"})) == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train/a.txt": "x"}, r"train: has no class folders \(its folders: none\)"),
        ({"texts.doc": "x"}, r"has no class folders"),
        ({"mine.csv": "x"}, r"to where they are, such as one of its files: mine\.csv\."),
        ({"train/c/1.txt": "x"}, r"no class folders \(its folders: c\).*--data\.labels"),
    ],
)
def test_folders_without_classes_are_an_error(tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        read(write_folders(tmp_path, files), names={"a": "A"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a/1.txt", b"caf\xe9", r"a/1\.txt: invalid UTF-8 \(byte 4\)\. Convert"),
        ("a/1.txt.gz", None, r"1\.txt\.gz: cannot be read .*get this one again"),
    ],
)
def test_a_text_that_cannot_be_read_is_named(tmp_path, name, content, message):
    write_folders(tmp_path, {name: content or b"x"})
    if content is None:
        (tmp_path / name).write_bytes(b"no gzip")
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_a_byte_order_mark_is_no_text(tmp_path):
    mark = b"\xef\xbb\xbf"
    write_folders(tmp_path / "f", {"a/1.txt": mark + b"x", "b/1.txt": b"y"})
    (tmp_path / "t.csv").write_bytes(mark + b"text,label\nx,a\n")
    (tmp_path / "t.jsonl").write_bytes(mark + b'{"text": "x", "label": "a"}')
    for name in ("f", "t.csv", "t.jsonl"):
        assert read(tmp_path / name)[0].text == "x"


# Tables.


@pytest.mark.parametrize(
    ("name", "separator"),
    [("r.csv", ","), ("r.csv", ";"), ("r.tsv", "\t"), ("r.TSV", ","), ("r.csv.gz", "\t")],
)
def test_a_table_may_have_any_separator(tmp_path, name, separator):
    rows = [("Great, really; yes", "good"), ('two\nlines "here"', " bad ")]
    path = write_table(tmp_path / name, rows, separator=separator)
    assert read(path) == [
        Review("Great, really; yes", ("good",), None, f"{name}:2"),
        Review('two lines "here"', ("bad",), None, f"{name}:3"),
    ]


def test_columns_have_names_and_may_name_splits(tmp_path):
    rows = [("1", "dev", "x y", "4"), ("2", "train", "z", "5")]
    path = write_table(tmp_path / "r.csv", rows, ("id", "part", "review", "stars"))
    found = read(path, text="review", label="stars", split="part", splits={**NAMES, "val": "dev"})
    assert plain(found) == [("x y", ("4",), "val"), ("z", ("5",), "train")]
    message = r"r\.csv:1: no column 'text' and none 'label'; there are 'id', 'part', 'review', 'st"
    with pytest.raises(DataError, match=message):
        read(path)


def test_a_column_named_split_needs_no_option(tmp_path):
    header = ("split", "text", "label")
    path = write_table(tmp_path / "r.csv", [("test", "x", "a"), ("train", "y", "b")], header)
    assert [review.split for review in read(path)] == ["test", "train"]
    write_table(path, [("test", "x", "a"), ("", "y", "b"), ("extra", "z", "b")], header)
    message = r"another split, or of none \(2\): r\.csv:3 \(''\), r\.csv:4 \('extra'\)"
    with pytest.raises(DataError, match=message):
        read(path)


def test_labels_get_names_and_may_be_several(tmp_path):
    path = write_table(tmp_path / "r.csv", [("x", "0;b"), ("y", "1; b")])
    assert [review.labels for review in read(path)] == [("0", "b"), ("1", "b")]
    assert read(path, separator="")[0].labels == ("0;b",)
    names = {"0": "no", "1": "yes", "b": "b"}
    assert [review.labels[0] for review in read(path, names=names)] == ["no", "yes"]
    del names["1"]
    with pytest.raises(DataError, match=r"--data\.labels does not name \(1\): '1' \(r\.csv:3\)"):
        read(path, names=names)


def test_bad_rows_are_named_together(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("text,label\nx,a\n\ny,\nz,a,b\nw, ;a\n")
    with pytest.raises(DataError) as raised:
        read(path)
    message = str(raised.value)
    assert "reviews without a label (2): r.csv:4, r.csv:6." in message
    assert "r.csv:5 (3 columns, not 2: quote a text that has ',' in it)" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'text,label\n"x"y,a\n', r"r\.csv: the row from r\.csv:2 cannot be read .*twice"),
        (b"text,label,label\nx,a,b\n", r"r\.csv:1: columns of the same name: 'label'"),
        (b"text,label\nx,a\n\xff,b\n", r"r\.csv:3: invalid UTF-8 \(byte 1"),
        (b"", r"r\.csv: the file is empty"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(tmp_path, content, message):
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(path)


# JSONL.


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("a", ("a",)),
        (1, ("1",)),
        (True, ("true",)),
        (0.5, ("0.5",)),
        ("a; b", ("a", "b")),
        (["a", 2], ("a", "2")),
    ],
)
def test_labels_of_json_are_texts_numbers_or_lists(tmp_path, label, expected):
    path = write_jsonl(tmp_path / "r.jsonl.gz", [("x", label)])
    assert read(path) == [Review("x", expected, None, "r.jsonl.gz:1")]


def test_bad_lines_are_named_together(tmp_path):
    path = tmp_path / "r.ndjson"
    lines = [
        {"text": "x", "label": "a"},
        {"text": "x", "label": None},
        {"text": None, "label": "a"},
        {"review": "x", "stars": 3},
        {"text": "\ud800", "label": "a"},
        ["x", "a"],
        {"text": "x", "label": ["a", None]},
    ]
    path.write_text("\n".join([*map(json.dumps, lines), "{", ""]))
    with pytest.raises(DataError) as raised:
        read(path)
    message = str(raised.value)
    assert "reviews without a label (2): r.ndjson:2, r.ndjson:7." in message
    assert (
        "r.ndjson:3 (its text is null), r.ndjson:6 (not an object), r.ndjson:8 (not JSON" in message
    )
    assert "r.ndjson:4 (no 'text', 'label', but 'review', 'stars')" in message
    assert "half a character (\\ud800 to \\udfff) (1): r.ndjson:5." in message


def test_a_file_for_each_split(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [("x", "a")], split="of no matter")
    write_table(tmp_path / "valid.tsv.gz", [("y", "b")], separator="\t")
    write_jsonl(tmp_path / "notes.jsonl", [("no", "part")])
    found = read(tmp_path, splits={**NAMES, "val": "valid"})
    assert found == [
        Review("x", ("a",), "train", "train.jsonl:1"),
        Review("y", ("b",), "val", "valid.tsv.gz:2"),
    ]
    write_table(tmp_path / "train.csv", [("y", "b")])
    with pytest.raises(DataError, match=r"several files of one split: train\.csv, train\.jsonl\."):
        read(tmp_path)
    assert plain(read(tmp_path, "table")) == [("y", ("b",), "train")]


# Sources.


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("absent", "auto", r"absent: does not exist"),
        ("r.txt", "auto", r"r\.txt: its format cannot be told from its name.*folders, table"),
        ("r.txt", "folders", r"r\.txt: is not a folder"),
        (".", "npz", r"is not a file"),
        (".", "jsonl", r"has no train\.jsonl or train\.jsonl\.gz or train\.ndjson"),
    ],
)
def test_a_source_that_is_none_says_what_can_be(tmp_path, name, kind, message):
    (tmp_path / "r.txt").write_text("text,label\nx,a\n")
    with pytest.raises(DataError, match=message):
        read(tmp_path / name, kind)
    assert plain(read(tmp_path / "r.txt", "table")) == [("x", ("a",), None)]


def test_the_key_follows_what_is_read(tmp_path):
    path = write_table(tmp_path / "r.csv", [("x", "a")])
    key = find_reviews(path, layout()).key()
    assert find_reviews(path.rename(tmp_path / "s.csv"), layout()).key() == key
    path = tmp_path / "s.csv"
    assert find_reviews(path, layout(names={"a": "b"})).key() != key
    write_table(path, [("y", "a")])
    assert find_reviews(path, layout()).key() != key
    folders = write_folders(tmp_path / "f", {"a/1.txt": "x", "b/1.txt": "y"})
    key = find_reviews(folders, layout()).key()
    (folders / "a").rename(folders / "A")
    assert find_reviews(folders, layout()).key() != key


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.txt", "one two\n\nthree\n"),
        ("r.csv", "id,text,split\n1,one two,x\n2,,y\n3,three,z\n"),
        ("r.jsonl", '{"text": "one two", "label": 1}\n{"text": ""}\n{"text": "three"}\n'),
    ],
)
def test_texts_alone_need_no_label(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    found = list(find_texts(tmp_path / name, layout(label=None)))
    assert [review.text for review in found] == ["one two", "", "three"]
    assert {review.labels for review in found} == {()}
    with pytest.raises(DataError, match=r"absent: does not exist\. Set --data\.predict"):
        find_texts(tmp_path / "absent", layout())


def test_lines_keep_their_number_in_packed_tables_too(tmp_path):
    with gzip.open(tmp_path / "r.csv.gz", "wt", newline="") as file:
        csv.writer(file).writerows([("text", "label"), ("a\nb", "x"), ("c", "")])
    with pytest.raises(DataError, match=r"without a label \(1\): r\.csv\.gz:4\."):
        read(tmp_path / "r.csv.gz")
