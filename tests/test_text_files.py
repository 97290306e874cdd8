import gzip
import itertools
import json

import pytest

from datamodules.text_files import find_separator, find_text, read_lines, text_exists
from seq2seq.errors import DataError

PAIRS = [("a cat", "eine Katze"), ("", ""), ("x\u2028y\x0bz\x85w", "drei")]


def write(path, lines, end="\n"):
    content = "".join(line + end for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def lines_files(folder, suffix=""):
    for side, language in enumerate(("en", "de")):
        write(folder / f"train.{language}{suffix}", [pair[side] for pair in PAIRS])


def tsv_file(folder, suffix=""):
    write(folder / f"train.tsv{suffix}", ["\t".join(pair) for pair in PAIRS])


def tsv_file_with_header(folder, suffix=""):
    rows = [f"{target}\t7\t{source}" for source, target in PAIRS]
    write(folder / f"train.tsv{suffix}", ["de\tid\ten", *rows])


def jsonl_file(folder, suffix=""):
    rows = [json.dumps({"de": target, "en": source, "id": 7}) for source, target in PAIRS]
    write(folder / f"train.jsonl{suffix}", rows)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("make", [lines_files, tsv_file, tsv_file_with_header, jsonl_file])
def test_every_format_is_found_and_gives_the_same_pairs(tmp_path, make, suffix):
    make(tmp_path, suffix)
    assert text_exists(tmp_path, "train", "en", "de")
    text = find_text(tmp_path, "train", "en", "de")
    assert [(pair.source, pair.target) for pair in text] == PAIRS
    assert list(text) == list(text)  # it can be read again


def test_line_numbers_are_those_of_the_file(tmp_path):
    tsv_file_with_header(tmp_path)
    assert [pair.line for pair in find_text(tmp_path, "train", "en", "de")] == [2, 3, 4]


def test_only_the_source_can_be_read(tmp_path):
    write(tmp_path / "new.en", ["one", "two"])
    pairs = list(find_text(tmp_path, "new", "en", None))
    assert [(pair.source, pair.target) for pair in pairs] == [("one", None), ("two", None)]


def test_byte_order_mark_and_carriage_returns_are_removed(tmp_path):
    write(tmp_path / "x", ["\ufeffone", "two ", "\rthree"], end="\r\n")
    assert list(read_lines(tmp_path / "x")) == ["one", "two ", "\rthree"]


def test_the_last_line_needs_no_end(tmp_path):
    (tmp_path / "x").write_text("one\n\ntwo")
    assert list(read_lines(tmp_path / "x")) == ["one", "", "two"]


def test_reading_is_lazy(tmp_path):
    (tmp_path / "x").write_bytes(b"good\n" * 3 + b"\xff\n")
    assert list(itertools.islice(read_lines(tmp_path / "x"), 3)) == ["good"] * 3


def test_a_format_can_be_chosen_where_there_are_several(tmp_path):
    lines_files(tmp_path)
    jsonl_file(tmp_path)
    with pytest.raises(DataError, match=r"More than one corpus: .*train\.jsonl.*--data\.format"):
        find_text(tmp_path, "train", "en", "de")
    assert find_text(tmp_path, "train", "en", "de", "jsonl").paths == (tmp_path / "train.jsonl",)


def test_a_missing_corpus_names_what_was_looked_for(tmp_path):
    assert not text_exists(tmp_path, "train", "en", "de")
    with pytest.raises(
        DataError,
        match=r"looked for train\.en\[\.gz\] with train\.de\[\.gz\]; train\.tsv\[\.gz\]; "
        r"train\.jsonl\[\.gz\]",
    ):
        find_text(tmp_path, "train", "en", "de")


def test_a_missing_partner_is_named(tmp_path):
    write(tmp_path / "train.de", ["eins"])
    with pytest.raises(DataError, match=r"train\.de has no partner: looked for .*train\.en\.gz"):
        find_text(tmp_path, "train", "en", "de")


@pytest.mark.parametrize(("source", "target"), [(3, 5), (5, 3)])
def test_files_of_different_length_give_both_counts(tmp_path, source, target):
    write(tmp_path / "train.en", ["a"] * source)
    write(tmp_path / "train.de", ["b"] * target)
    message = rf"train\.en has {source} lines, .*train\.de has {target}\."
    with pytest.raises(DataError, match=message):
        list(find_text(tmp_path, "train", "en", "de"))


def test_invalid_utf8_gives_the_line(tmp_path):
    (tmp_path / "x").write_bytes(b"one\ntw\xff\nthree\n")
    with pytest.raises(DataError, match=r"x:2: invalid UTF-8 \(byte 3 of the line\)"):
        list(read_lines(tmp_path / "x"))


def test_an_empty_file_is_an_error(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(DataError, match="x: the file is empty"):
        list(read_lines(tmp_path / "x"))


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda _: b"plain text\n"])
def test_a_damaged_archive_is_an_error(tmp_path, damage):
    (tmp_path / "x.gz").write_bytes(damage(gzip.compress(b"one\n" * 100)))
    with pytest.raises(DataError, match=r"x\.gz: cannot be read after line"):
        list(read_lines(tmp_path / "x.gz"))


def test_a_tsv_line_without_columns_is_an_error(tmp_path):
    write(tmp_path / "train.tsv", ["one\teins", "two"])
    with pytest.raises(DataError, match=r"train\.tsv:2: 1 column\(s\), at least 2 are needed"):
        list(find_text(tmp_path, "train", "en", "de"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"train\.jsonl:2: not JSON"),
        ('{"en": "two"}', r"train\.jsonl:2: .*keys 'en' and 'de'"),
        ('{"en": "two", "de": 2}', r"train\.jsonl:2: .*keys 'en' and 'de'"),
        ("[1]", r"train\.jsonl:2: .*keys 'en' and 'de'"),
        ('{"en": "\\ud800", "de": "zwei"}', r"train\.jsonl:2: half a character"),
        ('{"en": "two", "de": ' + "9" * 5000 + "}", r"train\.jsonl:2: not JSON"),
        ("[" * 100_000, r"train\.jsonl:2: not JSON"),
    ],
)
def test_a_bad_jsonl_line_is_an_error(tmp_path, line, message):
    write(tmp_path / "train.jsonl", ['{"en": "one", "de": "eins"}', line])
    with pytest.raises(DataError, match=message):
        list(find_text(tmp_path, "train", "en", "de"))


def test_a_folder_that_is_none_is_named(tmp_path):
    (tmp_path / "file").touch()
    for root, message in (("absent", r"absent does not exist"), ("file", r"file is not a folder")):
        with pytest.raises(DataError, match=rf"{message}\. Set --data\.root"):
            find_text(tmp_path / root, "train", "en", "de")


def test_a_folder_in_the_place_of_a_file_is_an_error(tmp_path):
    (tmp_path / "train.en").mkdir()
    write(tmp_path / "train.de", ["eins"])
    assert text_exists(tmp_path, "train", "en", "de")
    with pytest.raises(DataError, match=r"train\.en: cannot be read after line 0 \(.*directory"):
        list(find_text(tmp_path, "train", "en", "de"))


def test_quotes_mean_nothing_in_tsv(tmp_path):
    write(tmp_path / "train.tsv", ['"one ""two\t"eins', 'a "b"\tc'])
    pairs = [(pair.source, pair.target) for pair in find_text(tmp_path, "train", "en", "de")]
    assert pairs == [('"one ""two', '"eins'), ('a "b"', "c")]


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("path;label", ";"),
        ("Path\tLABEL\ta,b,c", "\t"),
        ('"a;b;path",label', ","),
        ("x;y;z", ";"),
        ("path", ","),
    ],
)
def test_the_separator_is_what_makes_the_header_name_the_columns(tmp_path, header, separator):
    (tmp_path / "x.csv").write_text(f"{header}\n1,2,3,4\n")
    assert find_separator(tmp_path / "x.csv", ("path", "label")) == separator
