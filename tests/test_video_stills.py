from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy_videos import number_of, numbers_of, picture

from seq2seq.errors import DataError
from seq2seq.videos import find_videos, is_video_name, open_video


def read(path, times, **options):
    with open_video(path, **options) as video:
        return video.read_frames(times)


def write_stills(folder, count, size=(9, 6), name="frame{}.png"):
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(picture(number, *size)).save(folder / name.format(number))
    return folder


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    folder = write_stills(tmp_path / "clip", 12)
    (folder / "notes.txt").touch()
    (folder / ".frame99.png").write_bytes((folder / "frame0.png").read_bytes())
    with open_video(folder, frame_rate_hz=4.0) as video:
        assert video.duration_seconds == 3.0
        frames = list(video.iter_frames())
    assert [number_of(frame.pixels) for frame in frames] == list(range(12))
    assert [frame.time_seconds for frame in frames] == [n / 4 for n in range(12)]
    assert numbers_of(read(folder, [2.6, 0.2, 0.25, 99.0], frame_rate_hz=4.0)) == [10, 0, 1, 11]


def test_frames_of_two_sizes_make_no_clip(tmp_path):
    folder = write_stills(tmp_path / "clip", 2)
    Image.new("RGB", (4, 5)).save(folder / "frame2.png")
    assert read(folder, [0.0, 0.04]).shape == (2, 3, 6, 9)
    with pytest.raises(DataError, match=r"differ in size \(\(3, 5, 4\) and \(3, 6, 9\)\)"):
        read(folder, [0.0, 0.08])
    with open_video(folder) as video:  # unless they are made one
        assert video.read_frames([0.0, 0.08], lambda pixels: pixels[:, :2, :2]).shape[0] == 2


def test_a_bad_frame_of_a_folder_is_named(tmp_path):
    folder = write_stills(tmp_path / "clip", 3)
    (folder / "frame1.png").write_text("no picture")
    with open_video(folder) as video, pytest.raises(DataError, match=r"frame1.png: is not a pict"):
        list(video.iter_frames())


ARRAY = np.stack([picture(number, 9, 6) for number in range(5)])


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (ARRAY, ARRAY),
        (ARRAY[..., 1], ARRAY[..., [1, 1, 1]]),
        (ARRAY[..., 1:2], ARRAY[..., [1, 1, 1]]),
        ((ARRAY / 255).astype(np.float32), ARRAY),
        (ARRAY > 50, (ARRAY > 50) * np.uint8(255)),
    ],
)
def test_an_array_is_a_video(tmp_path, array, wanted):
    np.save(tmp_path / "one.npy", array)
    np.savez(tmp_path / "one.npz", anything=array)
    np.savez_compressed(tmp_path / "two.npz", frames=array, label=3)
    for path in sorted(tmp_path.iterdir()):
        clip = read(path, [0.1, 0.4, 0.0], frame_rate_hz=10.0)
        assert torch.equal(clip, torch.from_numpy(wanted[[1, 4, 0]]).permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (ARRAY[0, 0], r"shape \(9, 3\), where \(time, height, width\)"),
        (ARRAY.transpose(0, 3, 1, 2), r"shape \(5, 3, 6, 9\)"),
        (ARRAY[:0], "has no pixels"),
        (ARRAY.astype(np.int64), "an array of int64"),
        (ARRAY.astype(np.float32), "frame 0 has values from 0 to 255"),
        (np.full((2, 3, 4), np.nan), "frame 0 has values from nan"),
        (np.array([None]), r"cannot be read as an array .*numpy\.save, as a uint8 array"),
    ],
)
def test_an_array_that_is_no_video_is_named(tmp_path, array, match):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=match):
        read(tmp_path / "x.npy", [0.0])


def test_which_array_of_several_has_to_be_clear(tmp_path):
    np.savez(tmp_path / "x.npz", first=ARRAY, second=ARRAY)
    with pytest.raises(DataError, match=r"it has first, second\. Save one array, or name it"):
        open_video(tmp_path / "x.npz")
    (tmp_path / "y.npz").write_text("no archive")
    with pytest.raises(DataError, match="cannot be read as an array"):
        open_video(tmp_path / "y.npz")


def test_videos_are_found_by_their_names(tmp_path):
    names = ["b/2.mp4", "b/1.AVI", "a.npy", "deep/er/x.gif"]
    for name in [*names, "b/poster.jpg", ".hidden.mp4", ".git/x.mp4", "notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    write_stills(tmp_path / "deep/stills", 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    wanted = sorted(tmp_path / name for name in [*names, "deep/stills"])
    assert find_videos(tmp_path) == wanted
    assert is_video_name(Path("x.MP4"))
    assert not is_video_name(Path("x.mp3"))
    with pytest.raises(DataError, match=r"does not exist\. Give a folder of videos"):
        find_videos(tmp_path / "nowhere")
