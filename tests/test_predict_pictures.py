import csv
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image
from toy_captioner import BAD, GOOD, save_captioner, write_pictures

import seq2seq
from seq2seq.errors import DataError
from seq2seq.predict import main
from seq2seq.search import SearchOptions

OPTIONS = SearchOptions(beam_size=3, max_length=6)


@pytest.fixture(scope="module")
def captioner_path(tmp_path_factory):
    return save_captioner(tmp_path_factory.mktemp("captioner"))


@pytest.fixture(scope="module")
def captioner(captioner_path):
    return seq2seq.load(captioner_path, "cpu")


@pytest.fixture(scope="module")
def all_pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def pictures(all_pictures, tmp_path):
    """Return a copy of the folder, for tests that change it or where they are."""
    return shutil.copytree(all_pictures, tmp_path / "pictures")


@pytest.fixture
def good(pictures):
    for name in BAD:
        (pictures / name).unlink()
    return pictures


@pytest.fixture
def predict(captioner_path, tmp_path, monkeypatch):
    """Return what runs the script in this process; it gives status, output and errors."""

    def run(source, *options, checkpoint=captioner_path):
        output, status = tmp_path / "out.txt", 0
        files = ["--ckpt_path", str(checkpoint), "--output", str(output), "--device", "cpu"]
        search = ["--beam_size", "3", "--max_length", "6"]
        arguments = ["seq2seq-predict", *files, *search, "--input", str(source), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        try:
            main()
        except SystemExit as stop:
            status = stop.code
        return status, output.read_text(encoding="utf-8") if output.exists() else ""

    return run


def refused(outcome, *parts):
    status, output = outcome
    assert status.startswith("seq2seq-predict: ")
    assert "\n" not in status
    for part in parts:
        assert part in status
    assert output == ""


# From Python.


def test_an_output_depends_on_its_picture_alone(captioner, all_pictures):
    items = [str(all_pictures / name) for name in [*GOOD[:3], *BAD, *GOOD[3:], GOOD[0]]]
    alone = [captioner.predict_chunk([item], OPTIONS, 1)[0][0] for item in items]
    assert len({best.score for best in alone}) > len(GOOD)  # those of different pictures differ
    for batch_size in (2, 3, 64):
        found = [best for best, *_ in captioner.stream(iter(items), OPTIONS, batch_size)]
        assert [best.text for best in found] == [best.text for best in alone]
        assert [best.error for best in found] == [best.error for best in alone]
        scores = [best.score for best in found]
        assert scores == pytest.approx([best.score for best in alone], abs=1e-4)


def test_a_bad_picture_has_an_error_in_its_place(captioner, all_pictures):
    items = [str(all_pictures / name) for name in [BAD[0], GOOD[0], BAD[1], BAD[2], "none.jpg"]]
    found = [best for [best] in captioner.predict_chunk([*items, " "], OPTIONS, batch_size=2)]
    assert [best.error is None for best in found] == [False, True, False, False, False, True]
    for item, best in zip(items, found, strict=False):
        assert best.error is None or best.error.startswith(f"{item}: ")
    assert [bool(best.text) for best in found] == [False, True, False, False, False, False]


def test_predict_takes_paths_and_stops_at_a_bad_picture(captioner, all_pictures):
    paths = [all_pictures / name for name in GOOD]
    captions = captioner.predict(iter(paths), batch_size=2, max_length=5)
    assert captions == captioner.predict(map(str, paths), max_length=5)
    assert all(captions)
    with pytest.raises(DataError, match=r"empty\.png: the file is empty"):
        captioner.predict([paths[0], all_pictures / "empty.png", paths[1]])


def test_only_two_batches_of_pictures_are_in_memory(captioner, all_pictures, monkeypatch):
    task, held, most = captioner.task, 0, 0
    load_item, collate = task.load_item, task.collate

    def counted_load(item):
        nonlocal held, most
        held += 1
        most = max(most, held)
        return load_item(item)

    def counted_collate(items):
        nonlocal held
        batch = collate(items)
        held -= len(items)
        return batch

    monkeypatch.setattr(task, "load_item", counted_load)
    monkeypatch.setattr(task, "collate", counted_collate)
    captioner.predict_chunk([str(all_pictures / name) for name in GOOD * 4], OPTIONS, 3)
    assert held == 0
    assert 3 < most <= 6


# What can be given as --input.


def test_a_folder_is_read_with_those_below_it_in_order(predict, captioner, good):
    status, output = predict(good)
    assert status == 0
    paths = [str(good / name) for name in GOOD]
    captions = captioner.predict(paths, beam_size=3, max_length=6)
    assert output == "".join(f"{p}\t{c}\n" for p, c in zip(paths, captions, strict=True))


def test_a_picture(predict, captioner, pictures, monkeypatch):
    monkeypatch.chdir(pictures)
    [caption] = captioner.predict(["cmyk.jpg"], beam_size=3, max_length=6)
    assert predict("cmyk.jpg") == (0, f"cmyk.jpg\t{caption}\n")


def test_a_list_has_paths_relative_to_it_or_to_the_working_directory(
    predict, good, tmp_path, monkeypatch
):
    here = tmp_path / "here"
    shutil.copytree(good / "b", here / "own")
    monkeypatch.chdir(here)
    listed = ["dog.jpg", "", f"{good}/cmyk.jpg", "  ", "own/dog.jpg", "a/dog.jpg"]
    (good / "list.txt").write_bytes("\ufeff".encode() + "\r\n".join(listed).encode())
    status, output = predict(good / "list.txt")
    assert status == 0
    paths = [line.split("\t")[0] for line in output.splitlines()]
    assert paths == [f"{good}/dog.jpg", f"{good}/cmyk.jpg", "own/dog.jpg", f"{good}/a/dog.jpg"]


def test_standard_input_has_a_path_on_each_line(predict, pictures, monkeypatch):
    (pictures / "paths").write_text("./dog.jpg\n\nempty.png\nnone.jpg\na/dog.jpg")
    monkeypatch.chdir(pictures)
    with Path("paths").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        status, output = predict("-")
    assert status == (
        "seq2seq-predict: 2 of 4 inputs could not be used; see the rows marked with an error."
    )
    paths, captions = zip(*(line.split("\t") for line in output.splitlines()), strict=True)
    assert paths == ("./dog.jpg", "empty.png", "none.jpg", "a/dog.jpg")
    assert [caption.startswith("[error: ") for caption in captions] == [False, True, True, False]


def test_an_empty_list_has_no_outputs(predict, tmp_path):
    (tmp_path / "list.txt").write_text("\n\n")
    assert predict(tmp_path / "list.txt") == (0, "")


def test_a_list_of_missing_pictures_is_a_list(predict, tmp_path):
    (tmp_path / "list.txt").write_text("one.jpg\ntwo.jpg\n")
    status, output = predict(tmp_path / "list.txt")
    assert "2 of 2 inputs could not be used" in status
    assert output.count("[error: does not exist.") == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"A dog runs.\n" + b"A very long line. " * 50, "none of its lines, such as 'A dog runs.'"),
        (b"dog\xff.jpg\n", "as it is not UTF-8"),
        (bytes(range(256)), "as it is not UTF-8"),
        (b"\0\0\n\0", "none of its lines, such as '\\x00\\x00'"),
    ],
)
def test_a_file_that_is_neither_a_picture_nor_a_list(predict, tmp_path, content, reason):
    (tmp_path / "some.txt").write_bytes(content)
    remedy = "Give a picture, a folder, or a text file with the path of a picture on each line."
    refused(predict(tmp_path / "some.txt"), "some.txt: is no picture by its name", reason, remedy)


def test_a_folder_without_pictures(predict, pictures):
    refused(predict(pictures / "hidden"), "hidden: there is no picture in this folder or below it")


@pytest.mark.parametrize("name", ["none", "none.jpg", "none.txt"])
def test_an_input_that_does_not_exist(predict, tmp_path, name):
    refused(predict(tmp_path / name), f"{name}: cannot be read: No such file or directory.")


# What is written.


def test_bad_pictures_cost_no_other_its_row(predict, captioner, pictures):
    status, output = predict(pictures)
    assert status == (
        "seq2seq-predict: 3 of 10 inputs could not be used; see the rows marked with an error."
    )
    rows = dict(line.split("\t") for line in output.splitlines())
    assert list(rows) == [str(pictures / name) for name in sorted([*GOOD, *BAD], key=Path)]
    for name in GOOD:
        [caption] = captioner.predict([pictures / name], beam_size=3, max_length=6)
        assert rows[str(pictures / name)] == caption
    assert rows[f"{pictures}/empty.png"].startswith("[error: the file is empty. ")
    assert rows[f"{pictures}/text.jpg"].startswith("[error: is not a picture of a known format")
    assert rows[f"{pictures}/a/broken.jpg"].startswith("[error: cannot be decoded")


def test_several_captions_follow_the_path(predict, pictures):
    _, output = predict(pictures / "dog.jpg", "--n_best", "3")
    assert output.count("\t") == 3


def test_jsonl_names_the_error(predict, pictures):
    _, output = predict(pictures, "--format", "jsonl", "--n_best", "2")
    records = [json.loads(line) for line in output.splitlines()]
    for record in records:
        name = str(Path(record["source"]).relative_to(pictures))
        assert ("error" in record) == (name in BAD)
        assert ("n_best" in record) == bool(record["text"]) == (name in GOOD)
        assert len(record["tokens"]) == len(record["token_scores"])


def test_csv_has_a_row_per_input(predict, pictures):
    _, output = predict(pictures, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(output)))
    assert list(rows[0]) == ["source", "text", "score", "error"]
    assert len(rows) == len(GOOD) + len(BAD)
    for row in rows:
        name = str(Path(row["source"]).relative_to(pictures))
        assert bool(row["error"]) == (name in BAD)
        assert bool(row["text"]) == bool(row["score"]) == (name in GOOD)


def test_csv_numbers_several_outputs(predict, pictures):
    _, output = predict(pictures / "a", "--format", "csv", "--n_best", "2")
    rows = list(csv.DictReader(io.StringIO(output)))
    assert list(rows[0]) == ["source", "rank", "text", "score", "error"]
    assert [row["rank"] for row in rows] == ["1", "1", "2", "1", "2"]  # the first is broken
    assert float(rows[1]["score"]) >= float(rows[2]["score"])


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"tab\tand\nline.jpg", b'a "b", c.jpg'])
def test_any_name_of_a_file_has_a_row_of_its_own(predict, good, name):
    file = os.fsencode(good / "dog.jpg")
    folder = good.parent / "odd"
    folder.mkdir()
    path = os.path.join(os.fsencode(folder), name)  # noqa: PTH118  # pathlib takes no bytes
    shutil.copy(file, path)
    status, output = predict(folder, "--attention_dir", str(good.parent / "figures"))
    assert (status, output.count("\n"), output.count("\t")) == (0, 1, 1)
    _, output = predict(folder, "--format", "jsonl")
    assert json.loads(output)["source"] == os.fsdecode(path)
    _, output = predict(folder, "--format", "csv")
    [_, [source, *_]] = csv.reader(io.StringIO(output, newline=""))
    assert source == os.fsdecode(path).encode("utf-8", "backslashreplace").decode()
    assert len(list((good.parent / "figures").iterdir())) == 1


# The attention.


def test_each_picture_has_a_figure_of_its_own(predict, pictures, tmp_path):
    figures = tmp_path / "new" / "figures"
    status, output = predict(pictures, "--attention_dir", str(figures))
    assert "3 of 10 inputs" in status
    assert output == predict(pictures)[1]
    names = ["a__dog", "a__gray", "b__dog", "b__deep__dog", "cmyk", "dog", "dog_2"]
    assert sorted(path.name for path in figures.iterdir()) == sorted(f"{n}.png" for n in names)
    for path in figures.iterdir():
        with Image.open(path) as figure:
            assert figure.format == "PNG"
            assert min(figure.size) > 200


def test_pictures_that_are_named_one_by_one_keep_their_names(predict, good, tmp_path):
    listed = ["b/dog.jpg", "dog.jpg", "a/gray.png", "dog.png"]
    (tmp_path / "list.txt").write_text("".join(f"{good / name}\n" for name in listed))
    predict(tmp_path / "list.txt", "--attention_dir", str(tmp_path / "figures"))
    found = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert found == ["dog.png", "dog_2.png", "dog_3.png", "gray.png"]


def test_the_figure_shows_the_caption_and_its_words(predict, good, tmp_path, monkeypatch):
    drawn = []
    overlay = sys.modules["seq2seq.figures"].overlay_figure
    monkeypatch.setattr(
        "seq2seq.tasks.captioning.overlay_figure",
        lambda picture, prediction: drawn.append((picture, prediction)) or overlay(*drawn[-1]),
    )
    _, output = predict(good / "dog.png", "--attention_dir", str(tmp_path / "figures"))
    [(picture, prediction)] = drawn
    assert picture.shape == (3, 32, 32)
    assert prediction.attention.shape == (len(prediction.tokens), 64)
    assert prediction.grid == (8, 8)
    assert output.endswith(f"\t{prediction.text}\n")


def test_figures_never_lie_among_the_pictures(predict, good):
    before = {path: path.read_bytes() for path in good.rglob("*.*g")}
    refused(
        predict(good, "--attention_dir", str(good / "a/../a")),
        "dog.jpg lies there too, and could be overwritten. Give another folder.",
    )
    assert {path: path.read_bytes() for path in good.rglob("*.*g")} == before


def test_a_folder_of_figures_that_cannot_be_made(predict, pictures):
    folder = pictures / "dog.jpg" / "figures"
    refused(
        predict(pictures, "--attention_dir", str(folder)), f"{folder}: cannot be made: Not a dir"
    )


def test_a_model_without_attention_has_none_to_show(predict, pictures, tmp_path):
    plain = save_captioner(tmp_path, attention="none", feed="output")
    outcome = predict(pictures, "--attention_dir", str(tmp_path / "figures"), checkpoint=plain)
    refused(outcome, "--attention_dir: this checkpoint's decoder has no attention")
    assert not (tmp_path / "figures").exists()
    assert predict(pictures / "dog.jpg", checkpoint=plain)[0] == 0


def test_an_alignment_is_for_text(predict, pictures):
    refused(
        predict(pictures, "--alignment", "--format", "jsonl"),
        "--alignment is between words, and this checkpoint reads pictures. Set --attention_dir",
    )
