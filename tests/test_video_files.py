import csv
import gzip

import numpy as np
import pytest
from PIL import Image

from datamodules.video_files import labels_of, read_videos, split_videos
from datamodules.video_formats import VideoEntry
from seq2seq.errors import DataError

UCF = {
    "classInd.txt": "1 Archery\n2 Bowling\n",
    "trainlist01.txt": "Archery/v_Archery_g08_c01.avi 1\r\nArchery/v_Archery_g08_c02.avi 1\n"
    "Bowling/v_Bowling_g08_c01.avi 2\n\n",
    "testlist01.txt": "Archery/v_Archery_g01_c01.avi\nBowling/v_Bowling_g02_c07.avi\n",
}


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write_table(folder, rows, header="path,label", name="clips.csv"):
    """Write a table, and the videos of its first column."""
    path = folder / name
    delimiter = "\t" if ".tsv" in name else ","
    lines = [header.split(","), *(row.split(",") for row in rows)]
    touch(folder, *(row[0] for row in lines[1:] if row and row[0]))
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(lines)
    return path


def write_ucf(folder, **changed):
    """Write split lists of UCF101, and all videos; ``changed`` are lists, named without .txt."""
    lists = {**UCF, **{f"{name}.txt": text for name, text in changed.items()}}
    for name, text in lists.items():
        if text is not None:
            (folder / name).write_text(text)
            if name != "classInd.txt":
                lines = [line.split() for line in text.splitlines() if "/" in line]
                touch(folder / "videos", *(line[0] for line in lines))
    return folder / "trainlist01.txt"


@pytest.mark.parametrize("name", ["clips.csv", "clips.tsv", "clips.csv.gz", "clips.TSV"])
def test_a_table_names_videos_and_labels(tmp_path, name):
    path = write_table(tmp_path, ["b.mp4,wave", "sub/a.avi,swipe_left"], name=name.lower())
    path = path.rename(tmp_path / name)
    assert read_videos(path) == [
        VideoEntry(tmp_path / "b.mp4", ("wave",), 0.0, None, "b.mp4", None, f"{name}:2"),
        VideoEntry(
            tmp_path / "sub/a.avi", ("swipe_left",), 0.0, None, "sub/a.avi", None, f"{name}:3"
        ),
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["clips.csv", "clips.tsv"])
def test_a_table_may_have_any_separator(tmp_path, name, separator):
    rows = [["Label", "path", "group"], ["push;the, cup", "a.mp4", "anna"]]
    with (tmp_path / name).open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    touch(tmp_path, "a.mp4")
    [entry] = read_videos(tmp_path / name, label_separator=";")
    assert (entry.path.name, entry.labels, entry.group) == ("a.mp4", ("push", "the, cup"), "anna")


def test_a_table_may_have_parts_groups_and_splits_in_any_order(tmp_path):
    rows = ["test,wave,anna,a.mp4,0.5,2", "train,bow,ben,b.mp4,,3.25", "test,bow,anna,a.mp4,2,"]
    table = write_table(tmp_path, rows, " Split,label,group,path,start,end")
    touch(tmp_path / "videos", "a.mp4", "b.mp4")
    found = read_videos(table, tmp_path / "videos")
    assert [entry.path.name for entry in found] == ["a.mp4", "b.mp4", "a.mp4"]
    assert {entry.path.parent for entry in found} == {tmp_path / "videos"}
    assert [entry[2:6] for entry in found] == [
        (0.5, 2.0, "anna", "test"),
        (0.0, 3.25, "ben", "train"),
        (2.0, None, "anna", "test"),
    ]


@pytest.mark.parametrize(
    ("separator", "labels"),
    [
        (" ", ("push;the", "cup")),
        (";", ("push", "the  cup")),
        ("", ("push;the  cup",)),
    ],
)
def test_a_label_may_have_several_steps(tmp_path, separator, labels):
    table = write_table(tmp_path, ["a.mp4,push;the  cup "])
    [entry] = read_videos(table, label_separator=separator)
    assert entry.labels == labels


def test_names_that_mean_one_file_are_one_group(tmp_path):
    table = write_table(tmp_path, ["a.mp4,x,0,1", "./a.mp4,x,1,2"], "path,label,start,end")
    assert {entry.group for entry in read_videos(table)} == {"a.mp4"}


def test_a_folder_of_frames_is_a_video(tmp_path):
    (tmp_path / "clip").mkdir()
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "clip" / "1.png")
    (tmp_path / "clips.csv").write_text("path,label\nclip,wave\n")
    [entry] = read_videos(tmp_path / "clips.csv")
    assert entry.path == tmp_path / "clip"


def test_each_class_has_its_folder(tmp_path):
    touch(tmp_path, "two words/b.mp4", "two words/a.gif", "bow/c.npy", "two words/notes.txt")
    touch(tmp_path, "bow/frames/1.png", ".cache/x.mp4", "bow/.d.mp4", "README.md")
    found = read_videos(tmp_path)
    assert [(entry.labels, entry.place) for entry in found] == [
        (("bow",), "bow/c.npy"),
        (("bow",), "bow/frames"),
        (("two words",), "two words/a.gif"),
        (("two words",), "two words/b.mp4"),
    ]
    assert [entry.group for entry in found] == [entry.place for entry in found]
    assert {entry.split for entry in found} == {None}


def test_folders_of_splits_have_folders_of_classes(tmp_path):
    touch(tmp_path, "test/bow/a.mp4", "train/bow/a.mp4", "train/wave/b.mp4")
    found = read_videos(tmp_path)
    assert [(entry.labels[0], entry.split, entry.group) for entry in found] == [
        ("bow", "train", "train/bow/a.mp4"),
        ("wave", "train", "train/wave/b.mp4"),
        ("bow", "test", "test/bow/a.mp4"),
    ]
    assert split_videos(found)["test"] == found[2:]


def test_a_class_may_be_called_as_a_split_is(tmp_path):
    touch(tmp_path, "train/1.mp4", "bus/2.mp4")
    assert labels_of(read_videos(tmp_path)) == ["bus", "train"]


def test_split_lists_of_ucf_name_both_splits_and_the_source_videos(tmp_path):
    found = read_videos(write_ucf(tmp_path), tmp_path / "videos")
    assert [(entry.labels, entry.split, entry.place) for entry in found] == [
        (("Archery",), "train", "trainlist01.txt:1"),
        (("Archery",), "train", "trainlist01.txt:2"),
        (("Bowling",), "train", "trainlist01.txt:3"),
        (("Archery",), "test", "testlist01.txt:1"),
        (("Bowling",), "test", "testlist01.txt:2"),
    ]
    assert found[0].path == tmp_path / "videos/Archery/v_Archery_g08_c01.avi"
    assert found[0].group == found[1].group == "Archery/v_Archery_g08"
    assert found[2].group == "Bowling/v_Bowling_g08"


def test_the_classes_of_ucf_need_no_numbers(tmp_path):
    assert len(read_videos(write_ucf(tmp_path, classInd=None), tmp_path / "videos")) == 5


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"classInd": "1 Archery\n"}, r"\(2\): Bowling 2 \(trainlist01.txt:3\), Bowling \(testl"),
        ({"classInd": "2 Archery\n1 Bowling\n"}, r"Archery 1 \(trainlist01.txt:1\)"),
        ({"classInd": "Archery\n"}, r"classInd.txt:1 \(not a number and a class\)"),
        ({"testlist01": "v_Archery_g01_c01.avi\n"}, r"testlist01.txt:1 \(not a class, a slash"),
        ({"testlist01": None}, "testlist01.txt: cannot be read"),
        ({"testlist01": ""}, "testlist01.txt: the file is empty"),
    ],
)
def test_bad_lists_of_ucf_are_named(tmp_path, changed, match):
    with pytest.raises(DataError, match=match):
        read_videos(write_ucf(tmp_path, **changed), tmp_path / "videos")


def test_missing_videos_are_counted_and_some_are_listed(tmp_path):
    table = write_table(tmp_path, [f"{number}.mp4,wave" for number in range(14)])
    for number in range(2, 14):
        (tmp_path / f"{number}.mp4").unlink()
    with pytest.raises(DataError, match=r"do not exist \(12\).*--data.root") as error:
        read_videos(table)
    assert f"{tmp_path / '2.mp4'} (clips.csv:4)" in str(error.value)
    assert "and 2 more" in str(error.value)


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ("a.mp4,,0,1,g,train", r"without a label \(1\): clips.csv:2"),
        (",wave,0,1,g,train", r"clips.csv:2 \(no path\)"),
        ("a.mp4,wave,2,2,g,train", r"times that cannot be \(1\): 2 to 2 \(clips.csv:2\)"),
        ("a.mp4,wave,3,2.5,g,train", "3 to 2.5"),
        ("a.mp4,wave,-1,2,g,train", "-1 to 2"),
        ("a.mp4,wave,,soon,g,train", "0 to soon"),
        ("a.mp4,wave,nan,,g,train", "nan to the end"),
        ("a.mp4,wave,0,inf,g,train", "0 to inf"),
        ("a.mp4,wave,0,1,,train", r"without a group \(1\): clips.csv:2"),
        ("a.mp4,wave,0,1,g,dev", r"'dev' \(clips.csv:2\). Known are train, val, test"),
        ("a.mp4,wave,0,1,g", r"clips.csv:2 \(5 columns, not 6"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, row, match):
    table = write_table(tmp_path, [row], "path,label,start,end,group,split")
    with pytest.raises(DataError, match=match):
        read_videos(table)


def test_an_empty_step_is_named(tmp_path):
    table = write_table(tmp_path, ["a.mp4,push;;cup"])
    with pytest.raises(DataError, match="without a label"):
        read_videos(table, label_separator=";")


def test_all_faults_are_said_at_once(tmp_path):
    rows = ["a.mp4,x,g,train", "a.mp4,x,g,train", "b.mp4,,g,train", "c.mp4,x,g,", "a.mp4,x,h,val"]
    table = write_table(tmp_path, [*rows, "d.mp4,x,g,train"], "path,label,group,split")
    (tmp_path / "d.mp4").unlink()
    with pytest.raises(DataError, match="the videos cannot be used") as error:
        read_videos(table)
    for part in (
        "duplicates (2)",
        f"{tmp_path / 'a.mp4'} (clips.csv:2 and clips.csv:3)",
        "without a label (1): clips.csv:4",
        "without a split (1): clips.csv:5",
        "do not exist (1)",
    ):
        assert part in str(error.value)


def test_parts_of_a_video_have_one_group(tmp_path):
    rows = ["a.mp4,x,0,1,g", "a.mp4,x,1,2,h"]
    table = write_table(tmp_path, rows, "path,label,start,end,group")
    with pytest.raises(DataError, match=r"two groups.*\(g at clips.csv:2, h at clips.csv:3\)"):
        read_videos(table)


@pytest.mark.parametrize("header", ["file,label", "path,label,person", "path", "path,label,label"])
def test_a_wrong_header_is_named(tmp_path, header):
    table = write_table(tmp_path, [], header)
    with pytest.raises(DataError, match=r"clips.csv:1: the header names.*'path' and 'label'"):
        read_videos(table)


def test_quotes_that_do_not_match_are_named(tmp_path):
    (tmp_path / "clips.csv").write_text('path,label\na.mp4,"wave\n')
    with pytest.raises(DataError, match=r"the row from clips\.csv:2 cannot be read"):
        read_videos(tmp_path / "clips.csv")


@pytest.mark.parametrize(
    ("files", "match"),
    [
        (["bow/a.mp4", "wave/notes.txt"], r"class folders without videos \(1\): .*wave"),
        (["bow/a.mp4", "bow/b/notes.txt"], r"folders without frames \(1\): .*bow/b"),
        (["bow/1.png", "wave/a.mp4"], r"do not lie in a class folder \(1\): .*bow"),
        (["train/bow/a.mp4", "valid/bow/b.mp4"], r"class folder \(2\).*named train, val, test"),
        (["a.mp4"], "has no class folders"),
        (["train/a.mp4", "val/bow/a.mp4"], "train: has no class folders"),
    ],
)
def test_bad_class_folders_are_named(tmp_path, files, match):
    touch(tmp_path, *files)
    with pytest.raises(DataError, match=match):
        read_videos(tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("nowhere", {}, "does not exist. Set --data.source"),
        ("clips.txt", {}, "cannot be told from its name.*--data.format"),
        ("clips.txt", {"format": "folders"}, "is not a folder. Set --data.source"),
        ("clips.txt", {"format": "ucf101"}, "not named like a training list"),
        ("empty.csv", {}, "names no video"),
        ("empty.csv", {"root": "nowhere"}, "nowhere: does not exist. Set --data.root"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(tmp_path, name, options, match):
    (tmp_path / "clips.txt").write_text("path label\n")
    (tmp_path / "empty.csv").write_text("path,label\n")
    if "root" in options:
        options = {"root": tmp_path / options["root"]}
    with pytest.raises(DataError, match=match):
        read_videos(tmp_path / name, **options)
