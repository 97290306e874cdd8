"""Whatever is wrong with a file, only a ``DataError`` comes of it: a run can go on without it."""

import random

import numpy as np
import pytest
from PIL import Image
from toy_videos import picture, write_video

from seq2seq.errors import DataError
from seq2seq.videos import open_video

ARRAY = np.stack([picture(number, 9, 6) for number in range(5)])
WRITERS = {
    "x.npy": lambda path: np.save(path, ARRAY),
    "stored.npz": lambda path: np.savez(path, frames=ARRAY),
    "packed.npz": lambda path: np.savez_compressed(path, frames=ARRAY),
    "x.mp4": write_video,
    "x.mkv": lambda path: write_video(path, "ffv1"),
    "x.avi": lambda path: write_video(path, "mpeg4"),
    "x.flv": write_video,
}


def damaged(content, chance):
    """Return content with some bytes changed, most of them at its start, or cut off."""
    if chance.random() < 0.2:
        return content[: chance.randrange(1, len(content))]
    changed = bytearray(content)
    end = len(content) if chance.random() < 0.5 else min(400, len(content))
    for _ in range(chance.choice([1, 3, 10])):
        changed[chance.randrange(end)] = chance.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("name", WRITERS)
def test_damage_of_any_kind_is_an_error_of_the_data(tmp_path, name):
    path, chance = tmp_path / name, random.Random(name)
    WRITERS[name](path)
    sound = path.read_bytes()
    errors = []
    for _ in range(60):
        path.write_bytes(damaged(sound, chance))
        try:
            with open_video(path, broken_tail=chance.choice(["error", "cut"])) as video:
                list(video.iter_frames())
        except DataError as error:
            errors.append(str(error))
    assert len(errors) > 5
    assert all(error.startswith(f"{path}: ") for error in errors)


def test_a_codec_that_is_not_known_is_named(tmp_path):
    path = tmp_path / "x.mp4"
    write_video(path)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(DataError, match=r"x\.mp4: is in a codec that is not known\. Convert it\."):
        open_video(path)


def test_a_name_that_is_too_long_is_named(tmp_path):
    with pytest.raises(DataError, match=r"n\.mp4: File name too long\. Give the path of a video"):
        open_video(tmp_path / f"{300 * 'n'}.mp4")


@pytest.mark.parametrize("unit", [1, 1000])  # metres and millimetres
def test_frames_of_floats_have_the_range_of_the_first(tmp_path, unit):
    for number, farthest in enumerate([0.98, 1.02, 0.5]):
        depth = np.array([[0.5, farthest]], np.float32) * unit
        Image.fromarray(depth).save(tmp_path / f"{number}.tif")
    with open_video(tmp_path) as video:
        shown = [frame.pixels[0, 0].tolist() for frame in video.iter_frames()]
    white = {1: 1.0, 1000: 65535.0}[unit]
    scale = 255 / white * unit
    expected = [
        [round(0.5 * scale), round(min(farthest, white / unit) * scale)]
        for farthest in (0.98, 1.02, 0.5)
    ]
    assert shown == expected
