import json
import pickle
import resource
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from toy_videos import cut_off, number_of, numbers_of, picture, write_video

from seq2seq.errors import ConfigError, DataError
from seq2seq.pictures import PictureGeometry
from seq2seq.videos import ClipSampling, open_video
from seq2seq.videos.frames import FramePreparation, FrameReader, VideoPart
from seq2seq.videos.store import FrameStore, frame_folder, frame_settings, write_frames

PREPARATION = FramePreparation(PictureGeometry(16, "squash"))
READER = FrameReader(PREPARATION, stills_rate_hz=10)
UNIFORM = ClipSampling("uniform", clip_frames=4)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    steady = write_video(folder / "steady.mp4", b_frames=2)
    uneven = write_video(
        folder / "uneven.mkv", "mpeg4", count=5, times_ms=[0, 130, 300, 1210, 1500]
    )
    array = folder / "array.npy"
    np.save(array, np.stack([picture(number, 20, 12) for number in range(7)]))
    return [steady, uneven, array]


def write_broken(folder):
    """Write a video of two seconds that breaks off after about one."""
    return cut_off(write_video(folder / "cut.mkv", "ffv1", count=20, size=(96, 64)), 0.6)


def stored(cache, parts, reader=READER):
    settings = frame_settings(reader, parts)
    write_frames(frame_folder(cache, settings), reader, parts, settings, workers=2)
    return FrameStore(frame_folder(cache, settings), settings)


# Preparation.


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_a_frame_is_prepared_as_a_picture_is(resize):
    geometry = PictureGeometry(12, resize)
    array = np.random.default_rng(1).integers(0, 256, (20, 15, 3), dtype=np.uint8)
    pixels = torch.from_numpy(array).permute(2, 0, 1).contiguous()
    colour, grey = (FramePreparation(geometry, channels)(pixels) for channels in (3, 1))
    assert torch.equal(colour, geometry(Image.fromarray(array)))
    square = Image.fromarray(colour.permute(1, 2, 0).numpy()).convert("L")
    assert torch.equal(grey, torch.from_numpy(np.array(square)).unsqueeze(0))


def write_runner(path):
    """Write a bright square on black that moves to the right by two pixels a frame."""
    frames = np.zeros((6, 20, 30), dtype=np.uint8)
    for number, frame in enumerate(frames):
        frame[8:18, 2 + 2 * number : 10 + 2 * number] = 200
    np.save(path, frames)
    return path


@pytest.mark.parametrize("start", [0.0, 0.2])
def test_the_foreground_of_the_first_frame_is_where_all_of_them_look(tmp_path, start):
    path = write_runner(tmp_path / "runner.npy")
    reader = FrameReader(FramePreparation(PictureGeometry(10, "foreground", 1.0), 1), 10)
    part = VideoPart(path, start)
    times = [start + 0.1 * number for number in range(4)]
    frames = reader.read_clips(part, lambda *_: [times])[0, :, 0]
    moved = round(start * 10)
    for number, frame in enumerate(frames, start=moved):
        lit = (frame > 100).any(dim=0).nonzero().flatten().tolist()
        assert lit == [column for column in range(1 + 2 * number, 9 + 2 * number) if column < 10]
    store = stored(tmp_path / "cache", [part], reader)
    assert torch.equal(store.clip(0, times)[:, 0], frames)


def test_frames_of_another_size_show_the_same_part_of_the_scene(tmp_path):
    for number, factor in enumerate([1, 1, 2]):
        frame = np.zeros((20 * factor, 30 * factor), dtype=np.uint8)
        frame[8 * factor : 18 * factor, 5 * factor : 9 * factor] = 200
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    reader = FrameReader(FramePreparation(PictureGeometry(10, "foreground"), 1), 10)
    first, same, large = reader.read_clips(VideoPart(tmp_path), lambda *_: [[0, 0.1, 0.2]])[0]
    assert torch.equal(first, same)
    assert first.any()
    assert (first.float() - large.float()).abs().mean() < 10


def test_settings_tell_what_frames_depend_on():
    settings = [
        FrameReader(FramePreparation(PictureGeometry(16), 1), 10, 1, "cut").settings(),
        FrameReader(FramePreparation(PictureGeometry(16), 3), 10, 1, "cut").settings(),
        FrameReader(FramePreparation(PictureGeometry(16), 1), 9, 1, "cut").settings(),
        FrameReader(FramePreparation(PictureGeometry(16), 1), 10, 1, "error").settings(),
    ]
    assert len({json.dumps(each) for each in settings}) == 4
    assert (
        settings[0]
        == FrameReader(FramePreparation(PictureGeometry(16), 1), 10, 5, "cut").settings()
    )


def test_two_channels_are_refused():
    with pytest.raises(
        ConfigError, match=r"--model\.image_channels=2 cannot be: choose 3 .* 1 for"
    ):
        FramePreparation(PictureGeometry(16), 2)


# Clips from files.


def test_clips_are_read_in_one_go(videos):
    [clips] = [
        READER.read_clips(VideoPart(videos[0], 0.2, 1.0), lambda *_: [[0.25, 0.9], [0.5, 0.5]])
    ]
    assert clips.shape == (2, 2, 3, 16, 16)
    assert [numbers_of(clip) for clip in clips] == [[2, 9], [5, 5]]


def test_the_end_of_a_part_is_clamped_to_that_of_the_video(videos):
    spans = []

    def sample(start, end):
        spans.append((start, end))
        return [[start]]

    for part in (
        VideoPart(videos[2]),
        VideoPart(videos[2], 0.2, 9),
        VideoPart(videos[2], 0.1, 0.3),
    ):
        READER.read_clips(part, sample)
    assert spans == [(0, 0.7), (0.2, 0.7), (0.1, 0.3)]


def test_a_part_that_begins_after_the_end_is_refused(videos):
    with pytest.raises(
        DataError, match=r"array\.npy: the part from 0\.8 s on begins after .* 0\.70"
    ):
        READER.read_clips(VideoPart(videos[2], 0.8), UNIFORM.evaluation_times)


def test_where_a_broken_tail_is_cut_clips_are_taken_from_what_is_there(tmp_path):
    path = write_broken(tmp_path)
    part = VideoPart(path)
    with pytest.raises(DataError, match="broken from"):
        READER.read_clips(part, UNIFORM.evaluation_times)
    reader = FrameReader(PREPARATION, broken_tail="cut")
    with open_video(path, broken_tail="cut") as video:
        there = len(list(video.iter_frames()))
        end = video.broken_seconds
    assert 8 < there < 14
    [clip] = reader.read_clips(part, UNIFORM.evaluation_times)
    expected = [int(time * 10) for time in UNIFORM.evaluation_times(0, end)[0]]
    assert numbers_of(clip) == expected
    assert len(set(expected)) == 4
    # The store, which knows the end from the start, gives the same.
    assert torch.equal(
        stored(tmp_path, [part], reader).read_clips(0, UNIFORM.evaluation_times)[0], clip
    )


# The store.


def test_a_store_gives_the_clips_of_the_files(tmp_path, videos):
    parts = [
        VideoPart(videos[0]),
        VideoPart(videos[1]),
        VideoPart(videos[0], 0.33, 0.71),
        VideoPart(videos[2], 0.2),
        VideoPart(videos[1], 0.2, 1.3),
    ]
    store = stored(tmp_path, parts)
    assert store.problems == {}
    for sampling in (
        UNIFORM,
        ClipSampling("dense", 3, 17.0, 4),
        ClipSampling("segment", 5, clips=2),
    ):
        for place, part in enumerate(parts):
            clips = store.read_clips(place, sampling.evaluation_times)
            assert torch.equal(clips, READER.read_clips(part, sampling.evaluation_times))


def test_the_frame_at_a_time_is_the_last_one_that_is_due(tmp_path, videos):
    store = stored(tmp_path, [VideoPart(videos[1])])
    assert store.times(0) == pytest.approx([0, 0.13, 0.3, 1.21, 1.5])
    times = [0.0, 0.1289, 0.1291, 0.299, 0.31, 1.2, 1.22, 1.5, 77.0, 0.2]
    assert store.places(0, times).tolist() == [0, 0, 1, 2, 2, 2, 3, 4, 4, 1]
    assert numbers_of(store.clip(0, times)) == [0, 0, 1, 2, 2, 2, 3, 4, 4, 1]


def test_only_frames_that_parts_show_are_kept(tmp_path, videos):
    parts = [
        VideoPart(videos[0], 0.25, 0.4),
        VideoPart(videos[2], 0.5),
        VideoPart(videos[0], 0.9, 1),
    ]
    store = stored(tmp_path, parts)
    assert store.times(0) == pytest.approx([0.2, 0.3, 0.4, 0.9, 1.0])
    assert store.times(1) == pytest.approx([0.5, 0.6])
    assert [number_of(store[place]) for place in range(len(store))] == [2, 3, 4, 9, 10, 5, 6]


def test_a_file_is_decoded_once(tmp_path, videos, monkeypatch):
    opened = []
    reading = FrameReader.open
    monkeypatch.setattr(
        FrameReader, "open", lambda self, path: opened.append(path) or reading(self, path)
    )
    parts = [VideoPart(videos[n], 0.1 * k) for k in range(3) for n in (0, 2)]
    first = stored(tmp_path, parts)
    assert sorted(opened) == sorted([videos[0], videos[2]])
    assert torch.equal(stored(tmp_path, parts)[3], first[3])
    assert len(opened) == 2


def test_what_changes_frames_changes_their_place(tmp_path, videos):
    here = [shutil.copy2(path, tmp_path) for path in videos[1:]]
    paths = [tmp_path / path.name for path in videos[1:]]
    assert here
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(2):
        Image.fromarray(picture(number, 8, 6)).save(folder / f"{number}.png")

    def place(parts, reader=READER):
        return frame_folder(tmp_path, frame_settings(reader, parts))

    parts = [VideoPart(path) for path in (*paths, folder)]
    places = [
        place(parts),
        place(parts[:-1]),
        place(parts[::-1]),
        place([*parts[:-1], VideoPart(folder, 0.1)]),
        place(parts, FrameReader(PREPARATION, stills_rate_hz=5)),
        place(parts, FrameReader(FramePreparation(PictureGeometry(16, "squash"), 1), 10)),
    ]
    Image.fromarray(picture(3, 10, 6)).save(folder / "1.png")
    places.append(place(parts))
    np.save(paths[1], np.zeros((3, 4, 4), dtype=np.uint8))
    places.append(place(parts))
    assert len(set(places)) == len(places)
    moved = [VideoPart(shutil.copy2(path, tmp_path / "frames" / path.name)) for path in paths]
    assert place(moved) == place(parts[:2])


def test_videos_that_cannot_be_read_are_left_out_and_told(tmp_path, videos):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    broken = write_broken(tmp_path)
    parts = [
        VideoPart(text),
        VideoPart(videos[0]),
        VideoPart(broken),
        VideoPart(videos[2], 3.0),
        VideoPart(tmp_path / "missing.mp4"),
        VideoPart(videos[2]),
    ]
    store = stored(tmp_path, parts)
    assert sorted(store.problems) == [0, 2, 3, 4]
    assert store.problems[0].startswith("is not a video of a known format")
    assert store.problems[2].startswith("broken from 1.")
    assert store.problems[3].startswith("the part from 3 s on begins after the end")
    assert store.problems[4].startswith("does not exist")
    assert len(store) == 12 + 7
    for place in (1, 5):
        expected = READER.read_clips(parts[place], UNIFORM.evaluation_times)
        assert torch.equal(store.read_clips(place, UNIFORM.evaluation_times), expected)


def test_where_no_video_can_be_read_the_store_is_empty(tmp_path):
    store = stored(tmp_path, [VideoPart(tmp_path / "missing.mp4")])
    assert len(store) == 0
    assert list(store.problems) == [0]


def cut(folder):
    (folder / "frames.data").write_bytes((folder / "frames.data").read_bytes()[:-100])


def forget(folder):
    (folder / "times.npy").unlink()


def garble(folder):
    (folder / "parts.json").write_text("[[0, 0.0, ")


@pytest.mark.parametrize("damage", [cut, forget, garble])
def test_a_damaged_store_is_refused(tmp_path, videos, damage):
    parts = [VideoPart(videos[2])]
    stored(tmp_path, parts)
    settings = frame_settings(READER, parts)
    damage(frame_folder(tmp_path, settings))
    with pytest.raises(DataError, match=r"frames-\w+ is damaged .*Delete this folder: it is made"):
        FrameStore(frame_folder(tmp_path, settings), settings)


def test_a_store_of_something_else_is_refused(tmp_path, videos):
    parts = [VideoPart(videos[2])]
    stored(tmp_path, parts)
    settings = frame_settings(READER, parts)
    for name, value in (("files", "0" * 32), ("decoder", "1.0"), ("parts", 3)):
        with pytest.raises(DataError, match=r"holds frames of other videos or of another prep"):
            FrameStore(frame_folder(tmp_path, settings), {**settings, name: value})


def test_a_disk_without_room_is_an_error_and_leaves_nothing(tmp_path, videos):
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, unlimited[1]))
    try:
        with pytest.raises(DataError, match=r"written \(File too large\)\. .* has room"):
            stored(tmp_path / "cache", [VideoPart(path) for path in videos])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert not [*(tmp_path / "cache").iterdir()]


def test_a_store_is_pickled_as_its_path(tmp_path, videos):
    store = stored(tmp_path, [VideoPart(path) for path in videos])
    pickled = pickle.dumps(store)
    assert len(pickled) < 2000 < store[0].numel() * len(store)
    copy = pickle.loads(pickled)
    assert all(torch.equal(copy[place], store[place]) for place in range(len(store)))


def test_what_is_done_to_frames_does_not_reach_the_file(tmp_path, videos):
    store = stored(tmp_path, [VideoPart(videos[2])])
    before = store.clip(0, [0.1, 0.3]).clone()
    store.clip(0, [0.1, 0.3]).fill_(0)
    store[1].fill_(0)
    assert torch.equal(store.clip(0, [0.1, 0.3]), before)
