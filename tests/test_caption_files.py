import csv
import gzip
import json

import pytest

from datamodules.caption_files import read_captions
from seq2seq.errors import DataError

# Name, captions, split.
PICTURES = [
    ("b.jpg", ("A dog, running .", 'It says "stop"'), "train"),
    ("a.jpg", ("Ein Hündchen",), "val"),
    ("sub/c d.png", ("x", "y", "x"), "train"),
]
LINES = [(name, text, split) for name, texts, split in PICTURES for text in texts]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name, _, _ in PICTURES:
        (folder / name).touch()
    return folder


def write(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def karpathy(pictures=PICTURES):
    images = []
    for index, (name, texts, split) in enumerate(pictures):
        folder, _, filename = name.rpartition("/")
        sentences = [{"raw": f" {text}\n", "tokens": text.split()} for text in texts]
        image = {"filename": filename, "split": split, "imgid": index, "sentences": sentences}
        images.append({**image, "filepath": folder} if folder else image)
    return {"dataset": "own", "images": images}


def coco(pictures=PICTURES):
    images = [{"id": 70 + row, "file_name": name} for row, (name, *_) in enumerate(pictures)]
    texts = [(70 + row, text) for row, (_, texts, _) in enumerate(pictures) for text in texts]
    annotations = [
        {"id": 1000 + row, "image_id": image, "caption": text}
        for row, (image, text) in enumerate(texts)
    ]
    return {"info": {}, "images": images, "annotations": annotations}


def table(path, delimiter, rows=LINES, header=("image", "caption", "split")):
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([header, *rows])
    return path.read_text()


def flickr(lines=LINES):
    counts = {}
    rows = []
    for name, text, _ in lines:
        counts[name] = counts.get(name, -1) + 1
        rows.append(f"{name}#{counts[name]}\t{text}\n")
    return "".join(rows)


def jsonl(lines=LINES, keys=("image", "caption", "split")):
    return "".join(json.dumps(dict(zip(keys, line, strict=True))) + "\n" for line in lines)


def content(kind, folder):
    return {
        "karpathy": lambda: json.dumps(karpathy()),
        "coco": lambda: json.dumps(coco(), indent=1),
        "flickr": flickr,
        "csv": lambda: table(folder / "scratch", ","),
        "tsv": lambda: table(folder / "scratch", "\t"),
        "csv_of_semicolons": lambda: table(folder / "scratch", ";"),
        "jsonl": jsonl,
        "jsonl_of_lists": lambda: jsonl(PICTURES, ("image", "captions", "split")),
    }[kind]()


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("karpathy", "x.json"),
        ("coco", "x.json"),
        ("flickr", "x.token"),
        ("flickr", "x.txt"),
        ("flickr", "x.tsv"),
        ("csv", "x.csv"),
        ("csv", "captions.txt"),
        ("csv_of_semicolons", "x.csv"),
        ("csv_of_semicolons", "captions.txt"),
        ("tsv", "x.tsv"),
        ("tsv", "captions.txt"),
        ("jsonl", "x.jsonl"),
        ("jsonl_of_lists", "x.ndjson"),
    ],
)
def test_every_format_is_recognised_and_says_the_same(tmp_path, images, kind, name, ending):
    path = write(tmp_path / f"{name}{ending}", content(kind, tmp_path))
    found = read_captions(path, images)
    has_splits = kind not in ("coco", "flickr")
    assert [(picture.path, picture.captions, picture.split) for picture in found] == [
        (images / name, texts, split if has_splits else None) for name, texts, split in PICTURES
    ]
    assert found == read_captions(path, images, kind.partition("_")[0])


def test_the_place_is_that_of_the_first_line(tmp_path, images):
    lines = read_captions(write(tmp_path / "x.csv", table(tmp_path / "s", ",")), images)
    assert [picture.place for picture in lines] == ["x.csv:2", "x.csv:4", "x.csv:5"]
    entries = read_captions(write(tmp_path / "x.json", json.dumps(karpathy())), images)
    assert entries[2].place == "x.json: images[2]"


def test_lines_of_a_picture_need_not_stand_together(tmp_path, images):
    mixed = [LINES[1], LINES[2], LINES[0]]
    found = read_captions(write(tmp_path / "x.jsonl", jsonl(mixed)), images)
    assert [picture.path.name for picture in found] == ["b.jpg", "a.jpg"]
    assert found[0].captions == (PICTURES[0][1][1], PICTURES[0][1][0])


def test_a_caption_of_several_lines_becomes_one_line(tmp_path, images):
    rows = [("a.jpg", "one\ntwo  three ", "train"), ("b.jpg", "four", "train")]
    found = read_captions(write(tmp_path / "x.csv", table(tmp_path / "s", ",", rows)), images)
    assert [(picture.captions, picture.place) for picture in found] == [
        (("one two three",), "x.csv:2"),
        (("four",), "x.csv:4"),
    ]


def test_further_columns_and_blank_lines_change_nothing(tmp_path, images):
    path = write(tmp_path / "x.csv", "id,Caption,IMAGE\n1,one,a.jpg\n\n2,two,b.jpg\n\n")
    found = read_captions(path, images)
    assert [(picture.captions, picture.split) for picture in found] == [
        (("one",), None),
        (("two",), None),
    ]


def test_karpathy_s_tokens_stand_in_for_a_missing_sentence(tmp_path, images):
    data = karpathy([("a.jpg", ("one two",), "test")])
    del data["images"][0]["sentences"][0]["raw"]
    (found,) = read_captions(write(tmp_path / "x.json", json.dumps(data)), images)
    assert found.captions == ("one two",)


def test_an_absolute_name_stays_as_it_is(tmp_path, images):
    (tmp_path / "other.jpg").touch()
    path = write(tmp_path / "x.jsonl", jsonl([(str(tmp_path / "other.jpg"), "one", None)]))
    assert read_captions(path, images)[0].path == tmp_path / "other.jpg"


def fails(path, images, message, kind="auto"):
    with pytest.raises(DataError, match=message) as caught:
        read_captions(path, images, kind)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"categories": [], "annotations": []}, r"found the keys 'categories', 'annotations'\. "),
        ({"images": []}, r"found the keys 'images'\. Known are karpathy \('images'.*coco \("),
        ({}, "found no keys"),
        ([1, 2], "found a list"),
        ("text", "found a str"),
    ],
)
def test_another_schema_is_named(tmp_path, images, content, message):
    fails(write(tmp_path / "x.json", json.dumps(content)), images, rf"another schema: {message}")


@pytest.mark.parametrize("kind", ["karpathy", "coco"])
def test_another_schema_than_the_chosen_one_is_named(tmp_path, images, kind):
    path = write(tmp_path / "x.json", json.dumps({"images": {}, "data": 1}))
    message = r"found the keys 'images', 'data', looked for lists under 'images'.*--data\.format"
    fails(path, images, message, kind)


@pytest.mark.parametrize("text", ["{", jsonl(), "[" * 100_000])
def test_what_is_not_json_is_named(tmp_path, images, text):
    fails(write(tmp_path / "x.json", text), images, r"x\.json: not JSON .*--data\.format")


HEADER = "image,caption,split\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.txt", "once upon\n", r"cannot be told .*'once upon.*--data\.format: karpathy, coco"),
        ("x.csv", "picture,text\na.jpg,one\n", r"names the columns picture, text, where 'image'"),
        ("x.csv", HEADER, r"x\.csv: names no picture"),
        ("x.csv", f'{HEADER}a.jpg,one,\nb.jpg,"two\n', r"row from x\.csv:3 cannot be read"),
        ("x.csv", f"{HEADER}a.jpg,1, 2,\n", r"\(1\): x\.csv:2 \(4 columns, not 3: quote"),
        ("x.csv", f"{HEADER}a.jpg,1,\nb.jpg\n", r"\(1\): x\.csv:3 \(1 columns, not 3: quote"),
        ("x.csv", f"{HEADER} ,one,\n", r"\(1\): x\.csv:2 \(no image\)"),
        ("x.csv", f"{HEADER}a.jpg,1,t\nb.jpg,2,\n", r"without a split \(1\): x\.csv:3\."),
        (
            "x.csv",
            f"{HEADER}a.jpg,1,train\nb.jpg,2,val\na.jpg,3,val\n",
            r"two splits \(1\): a\.jpg \(train at x\.csv:2, val at x\.csv:4\)",
        ),
        ("x.txt", "a.jpg#0\t1\nb.jpg 2\n", r"cannot be read \(1\): x\.txt:2 \(not a name, #"),
        (
            "x.txt",
            "a.jpg#0\t1\na.jpg#1\t \nb.jpg#0\t\n",
            r"without a caption \(2\): x\.txt:2, x\.txt:3\. Give",
        ),
        (
            "x.txt",
            "a.jpg#0\t1\na.jpg#1\t2\na.jpg#0\t3\n",
            r"duplicates \(1\): line a\.jpg#0 \(x\.txt:1 and x\.txt:3\)",
        ),
        (
            "x.jsonl",
            '{"image": "a.jpg", "caption": "\\ud800"}\n',
            r"half a character .*\(1\): x\.jsonl:1\.",
        ),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, images, name, text, message):
    fails(write(tmp_path / name, text), images, message)


def test_invalid_utf8_gives_the_line(tmp_path, images):
    (tmp_path / "x.csv").write_bytes(b"image,caption\na.jpg,\xff\n")
    fails(tmp_path / "x.csv", images, r"x\.csv:2: invalid UTF-8")


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", '{"image": "a.jpg"}', '{"image": "a.jpg", "captions": "one"}', '{"image": 3}'],
)
def test_a_bad_line_of_jsonl_is_named(tmp_path, images, line):
    path = write(tmp_path / "x.jsonl", f"{jsonl()}{line}\n")
    fails(path, images, rf"entries that cannot be read \(1\): x\.jsonl:{len(LINES) + 1} ")


@pytest.mark.parametrize(
    ("kind", "entries"),
    [
        ("karpathy", {"images": [7]}),
        ("karpathy", {"images": [{"filename": "a.jpg", "sentences": None}]}),
        ("coco", {"images": [{"id": 1}], "annotations": []}),
        ("coco", {"images": [], "annotations": [{"image_id": 1}]}),
    ],
)
def test_a_bad_entry_is_named(tmp_path, images, kind, entries):
    path = write(tmp_path / "x.json", json.dumps(entries))
    fails(path, images, r"cannot be read \(1\): x\.json: (images|annotations)\[0\] \(no '", kind)


@pytest.mark.parametrize("count", [1, 10, 13])
def test_missing_pictures_are_listed_up_to_a_limit_and_counted(tmp_path, images, count):
    absent = [(f"absent{row}.jpg", "one", "train") for row in range(count)]
    path = write(tmp_path / "x.jsonl", jsonl([*LINES, *absent]))
    message = fails(path, images, rf"pictures that do not exist \({count}\): .*--data\.images")
    assert message.count("absent") == min(count, 10)
    assert f"{images / 'absent0.jpg'} (x.jsonl:{len(LINES) + 1})" in message
    assert ("and 3 more" in message) == (count == 13)


def test_a_missing_folder_of_pictures_is_named_once(tmp_path):
    path = write(tmp_path / "x.jsonl", jsonl())
    fails(path, tmp_path / "absent", r"absent: does not exist\. Set --data\.images")


def test_pictures_without_captions_are_placed(tmp_path, images):
    silent = [PICTURES[0], ("a.jpg", (), "val")]
    path = write(tmp_path / "x.json", json.dumps(karpathy(silent)))
    fails(path, images, r"without a caption \(1\): x\.json: images\[1\]")
    path = write(tmp_path / "x.json", json.dumps(coco(silent)))
    fails(path, images, r"without a caption \(1\): x\.json: images\[1\]")


def test_duplicates_of_karpathy_are_named(tmp_path, images):
    data = karpathy()
    data["images"][1]["imgid"] = 0
    data["images"].append({**data["images"][0], "imgid": 9})
    message = fails(write(tmp_path / "x.json", json.dumps(data)), images, r"duplicates \(2\): ")
    assert "imgid 0 (x.json: images[0] and x.json: images[1])" in message
    assert "filename b.jpg (x.json: images[0] and x.json: images[3])" in message


def test_duplicates_and_unknown_ids_of_coco_are_named(tmp_path, images):
    data = coco()
    data["images"].append({"id": 71, "file_name": "b.jpg"})
    data["annotations"][3]["id"] = 1001
    data["annotations"].append({"id": 5, "image_id": 69, "caption": "one"})
    message = fails(write(tmp_path / "x.json", json.dumps(data)), images, r"duplicates \(3\): ")
    for part in ("image id 71 (", "file_name b.jpg (", "annotation id 1001 ("):
        assert f"{part}x.json: " in message
    assert "not under 'images' (1): x.json: annotations[6] (image_id 69)" in message


def test_faults_of_several_kinds_are_named_together(tmp_path, images):
    path = write(tmp_path / "x.jsonl", jsonl([("absent", "one", None), ("a.jpg", "", None)]))
    message = fails(path, images, "the captions cannot be used:")
    assert "without a caption (1): x.jsonl:2" in message
    assert "do not exist (1)" in message
