import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from datamodules.check import read_all
from datamodules.shapes import COLOURS, Scene, Shape, ShapesDataModule, draw_scene, generate_scenes
from seq2seq.errors import ConfigError, DataError
from seq2seq.sequences import UNK_ID

SCENES = generate_scenes(300, seed=5)
NUMBERS = {"two": 2, "three": 3, "four": 4}


def module(root, **options):
    counts = {"train_count": 60, "val_count": 7, "test_count": 5, "picture_size": 16}
    return ShapesDataModule(str(root), **counts | options)


def written(root):
    """Return all files but those of the cache, and their content."""
    paths = [*root.glob("*.*"), *root.glob("*/*.png")]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if path.is_file()}


def kinds(scene):
    return [(shape.colour, shape.form) for shape in scene.shapes]


# What is said is true.


def test_sorts_of_scenes_are_equally_frequent():
    def sort(scene):
        return "one" if len(scene.shapes) == 1 else "sides" if is_sided(scene) else "number"

    assert Counter(map(sort, SCENES)) == {"one": 100, "sides": 100, "number": 100}


def is_sided(scene):
    return any("left" in caption.split() for caption in scene.captions)


def test_five_captions_name_what_is_there():
    for scene in SCENES:
        assert len(set(scene.captions)) == 5
        for caption in scene.captions:
            words = caption.replace("squares", "square").replace("circles", "circle")
            words = words.replace("triangles", "triangle").split()
            for name in {name for kind in kinds(scene) for name in kind}:
                assert name in words, caption
            assert {word for word in words if word in COLOURS} == {c for c, _ in kinds(scene)}


def test_numbers_are_right():
    for scene in SCENES:
        for caption in scene.captions:
            for word in NUMBERS.keys() & set(caption.split()):
                assert len(scene.shapes) == NUMBERS[word]
                assert len(set(kinds(scene))) == 1


def test_left_and_right_are_right():
    for scene in filter(is_sided, SCENES):
        left, right = sorted(scene.shapes, key=lambda shape: shape.column)
        a, b = (f"a {shape.colour} {shape.form}" for shape in (left, right))
        assert f"{a} to the left of {b}" in scene.captions
        assert f"{b} with {a} on its left" in scene.captions
        assert right.column - left.column > 2 * abs(right.row - left.row)


def test_no_shape_touches_another_or_the_border():
    for scene in SCENES:
        for number, shape in enumerate(scene.shapes):
            for middle in (shape.column, shape.row):
                assert shape.radius < middle < 100 - shape.radius
            for other in scene.shapes[:number]:
                apart = max(abs(shape.column - other.column), abs(shape.row - other.row))
                assert apart > shape.radius + other.radius


@pytest.mark.parametrize("form", ["circle", "square", "triangle"])
def test_a_shape_is_drawn_where_it_is_in_its_colour(form):
    scene = Scene((Shape("green", form, 30, 60, 15),), ("a",), grey=120)
    pixels = np.asarray(draw_scene(scene, 100)).astype(int)
    assert tuple(pixels[60, 30]) == COLOURS["green"]
    rows, columns = np.nonzero((pixels != 120).any(axis=-1))
    assert (rows.mean(), columns.mean()) == (pytest.approx(60, abs=4), pytest.approx(30, abs=1))
    assert len(rows) == pytest.approx(np.pi * 15**2, rel=0.3)
    assert set(map(tuple, pixels[:20].reshape(-1, 3))) == {(120, 120, 120)}


# Files.


def test_no_scene_comes_twice_and_generation_is_deterministic(tmp_path):
    assert len({scene.shapes for scene in SCENES}) == len(SCENES)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        module(tmp_path / name, seed=seed).prepare_data()
    first, second, other = (written(tmp_path / name) for name in "abc")
    assert first == second
    assert first.keys() == other.keys()
    assert first["captions.jsonl"] != other["captions.jsonl"]


def test_files_are_made_anew_only_for_other_settings(tmp_path):
    module(tmp_path).prepare_data()
    before = (tmp_path / "captions.jsonl").stat().st_mtime_ns
    module(tmp_path, captions_per_picture=2, batch_size=3).prepare_data()
    assert (tmp_path / "captions.jsonl").stat().st_mtime_ns == before
    module(tmp_path, test_count=3, picture_size=20).prepare_data()
    names = sorted(path.name for path in (tmp_path / "test").iterdir())
    assert names == ["scene-00000.png", "scene-00001.png", "scene-00002.png"]
    with Image.open(tmp_path / "test" / names[0]) as picture:
        assert picture.size == (20, 20)


@pytest.mark.parametrize("name", ["captions.jsonl", "train/scene-00059.png", "settings.json"])
def test_a_deleted_file_is_made_anew(tmp_path, name):
    module(tmp_path).prepare_data()
    before = written(tmp_path)
    assert len(before) == 60 + 7 + 5 + 2
    (tmp_path / name).unlink()
    module(tmp_path).prepare_data()
    assert written(tmp_path) == before


def test_the_default_vocabulary_has_every_word(tmp_path):
    data = module(tmp_path, train_count=200)
    data.prepare_data()
    data.setup("fit")
    [batch, *_] = data.val_dataloader()
    assert not (batch.target == UNK_ID).any()
    lines = map(json.loads, (tmp_path / "captions.jsonl").read_text().splitlines())
    assert Counter(line["split"] for line in lines) == {"train": 200, "val": 7, "test": 5}
    [pictures] = data.predict_dataloader()
    assert len(pictures.inputs) == 5


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"picture_size": 15}, r"--data\.picture_size is 15: set it to 16 or more"),
        ({"val_count": 0}, r"--data\.val_count and .* must be 1 or more, and 100,000 or less"),
        ({"train_count": 100_000}, r"--data\.train_count, .* must be 1 or more, and 100,000"),
    ],
)
def test_options_that_cannot_work_are_named(tmp_path, options, match):
    with pytest.raises(ConfigError, match=match):
        module(tmp_path, **options)


def test_a_root_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/shapes: the pictures .*Set --data\.root"):
        module(tmp_path / "file" / "shapes").prepare_data()


def test_the_check_of_the_files_writes_them_first(tmp_path):
    data = module(tmp_path / "new")
    found = read_all(data.iter_readings())
    assert len(found) == sum(data.counts.values())
    assert all(finding.problem is None for finding in found)
