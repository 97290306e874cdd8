import weakref
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from toy_videos import (
    CONTAINERS,
    RATE_HZ,
    cut_off,
    number_of,
    numbers_of,
    picture,
    write_audio,
    write_gif,
    write_video,
)

from seq2seq.errors import ConfigError, DataError
from seq2seq.videos import open_video

SHOWN_MS = [0, 100, 150, 400, 1000, 1040]


def frames_of(path, **options):
    with open_video(path, **options) as video:
        return list(video.iter_frames())


def read(path, times, **options):
    with open_video(path, **options) as video:
        return video.read_frames(times)


@pytest.mark.parametrize("name", CONTAINERS)
def test_frames_come_in_order_with_their_times(tmp_path, name):
    path = write_video(tmp_path / name, CONTAINERS[name])
    frames = frames_of(path)
    assert [number_of(frame.pixels) for frame in frames] == list(range(12))
    assert {(tuple(frame.pixels.shape), frame.pixels.dtype) for frame in frames} == {
        ((3, 32, 48), torch.uint8)
    }
    # A raw stream has no time stamps, and takes 25 frames/s.
    rate = 25 if name == "raw.h264" else RATE_HZ
    assert [frame.time_seconds for frame in frames] == pytest.approx([n / rate for n in range(12)])


@pytest.mark.parametrize("name", CONTAINERS)
def test_frames_of_wanted_times_are_those_of_the_whole_pass(tmp_path, name):
    path = write_video(tmp_path / name, CONTAINERS[name])
    frames = frames_of(path)
    places = [7, 2, 11, 7, 0]
    times = [frames[place].time_seconds for place in places]
    wanted = torch.stack([frames[place].pixels for place in places])
    with open_video(path) as video:
        assert torch.equal(video.read_frames(times), wanted)
        for time, frame in zip(times, wanted, strict=True):  # onwards and back
            assert torch.equal(video.read_frames([time]), frame[None])
        assert [number_of(frame.pixels) for frame in video.iter_frames()] == list(range(12))


def test_frames_that_are_stored_out_of_order_are_shown_in_order(tmp_path):
    path = write_video(tmp_path / "x.mp4", count=20, key_every=10, b_frames=3)
    assert [number_of(frame.pixels) for frame in frames_of(path)] == list(range(20))
    assert numbers_of(read(path, [1.15, 0.85, 1.95])) == [11, 8, 19]


def test_pixels_are_those_that_were_written(tmp_path):
    path = write_video(tmp_path / "x.mkv", "ffv1")  # lossless, but for the change of colours
    for number, frame in enumerate(frames_of(path)):
        wanted = torch.from_numpy(picture(number, 48, 32)).permute(2, 0, 1)
        assert (frame.pixels.int() - wanted.int()).abs().max() <= 3


@pytest.mark.parametrize(
    ("rotation", "corner"), [(0, (0, 0)), (90, (-1, 0)), (180, (-1, -1)), (270, (0, -1))]
)
def test_a_turned_video_is_upright(tmp_path, rotation, corner):
    path = write_video(tmp_path / "x.mp4", rotation=rotation, size=(64, 32))
    pixels = frames_of(path)[0].pixels
    assert pixels.shape == ((3, 64, 32) if rotation % 180 else (3, 32, 64))
    red, green, blue = pixels[:, corner[0], corner[1]].tolist()
    assert red > 200 > 90 > max(green, blue)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_of_no_steady_rate_are_shown_until_the_next_one(tmp_path, suffix):
    path = write_video(tmp_path / f"x.{suffix}", times_ms=SHOWN_MS, count=6)
    times = [frame.time_seconds for frame in frames_of(path)]
    assert times == pytest.approx([time / 1000 for time in SHOWN_MS])
    shown = {0.0: 0, 0.09: 0, 0.1: 1, 0.14: 1, 0.39: 2, 0.3995: 3, 0.98: 3, 1.01: 4, 99.0: 5}
    assert numbers_of(read(path, list(shown))) == list(shown.values())


def test_a_gif_has_its_own_times(tmp_path):
    path = write_gif(tmp_path / "x.gif", [100, 300, 50])
    frames = frames_of(path)
    assert [number_of(frame.pixels) for frame in frames] == [0, 1, 2]
    assert [frame.time_seconds for frame in frames] == pytest.approx([0.0, 0.1, 0.4])
    with open_video(path) as video:
        assert video.duration_seconds == pytest.approx(0.45)


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.avi", "x.h264"])
def test_the_duration_is_that_of_the_frames(tmp_path, name):
    rate = 25 if name == "x.h264" else RATE_HZ
    with open_video(write_video(tmp_path / name)) as video:
        assert video.duration_seconds == pytest.approx(12 / rate)
    assert video.duration_seconds == pytest.approx(12 / rate)  # closed, it still knows


def test_sound_that_goes_on_does_not_count(tmp_path):
    with open_video(write_video(tmp_path / "x.mp4", has_audio=True)) as video:
        assert len(list(video.iter_frames())) == 12
        assert video.duration_seconds == pytest.approx(1.2)


@pytest.mark.parametrize("size", [(13, 7), (1, 1), (1, 9)])
def test_odd_sizes_are_kept(tmp_path, size):
    width, height = size
    frames = frames_of(write_video(tmp_path / "x.mp4", "mpeg4", size=size, count=3))
    assert [tuple(frame.pixels.shape) for frame in frames] == [(3, height, width)] * 3


def test_one_frame_is_a_video(tmp_path):
    path = write_video(tmp_path / "x.mp4", count=1)
    assert numbers_of(read(path, [0.0, 5.0])) == [0, 0]


def test_the_content_decides_and_not_the_name(tmp_path):
    path = write_video(tmp_path / "x.avi").rename(tmp_path / "12:30 no video.txt")
    assert len(frames_of(path)) == 12


def test_threads_change_nothing(tmp_path):
    path = write_video(tmp_path / "x.mp4", b_frames=2)
    for one, three in zip(frames_of(path), frames_of(path, threads=3), strict=True):
        assert torch.equal(one.pixels, three.pixels)


def test_no_more_than_one_frame_of_full_size_is_held(tmp_path):
    path = write_video(tmp_path / "x.mp4")
    alive = []

    def each(pixels):
        assert all(reference() is None for reference in alive)
        alive.append(weakref.ref(pixels))
        return pixels[:, ::4, ::4].clone()

    with open_video(path) as video:
        clip = video.read_frames([0.05, 0.55, 0.55, 0.95], each)
    assert clip.shape == (4, 3, 8, 12)
    assert len(alive) == 3  # the same frame is converted once


def test_frames_that_are_not_wanted_are_not_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "x.mp4", "mpeg4", count=25, key_every=5)
    with open_video(path) as video:
        decoded = []
        sound = video._sound_frames

        def counted():
            for frame in sound():
                decoded.append(frame.pts)
                yield frame

        monkeypatch.setattr(video, "_sound_frames", counted)
        assert numbers_of(video.read_frames([1.65])) == [16]
    assert len(decoded) <= 7  # from the key frame before it to the one that ends it


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts threads and files in /proc")
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_nothing_stays_open(tmp_path, share):
    path = write_video(tmp_path / "x.mp4", count=25, options={"movflags": "faststart"})
    cut_off(path, share)

    def counts():
        return [len(list(Path("/proc/self", name).iterdir())) for name in ("task", "fd")]

    def half_read():
        with open_video(path, threads=3) as video:
            frames = video.iter_frames()
            next(frames)
            return counts()

    before = counts()
    for _ in range(3):
        assert half_read() > before
        try:
            read(path, [0.5, 2.4, 0.1], threads=3)
            broken = False
        except DataError:
            broken = True
        assert broken == (share < 1)
        with pytest.raises(DataError, match="audio only"):
            open_video(write_audio(tmp_path / "sound.mp4"))
        assert counts() == before


@pytest.fixture(params=["x.mp4", "x.mkv", "x.flv", "x.avi"])
def broken(request, tmp_path):
    """Return a video of 25 frames of which less than two thirds are there."""
    options = {"movflags": "faststart"} if request.param == "x.mp4" else {}
    codec = "mjpeg" if request.param == "x.avi" else "libx264"
    path = write_video(tmp_path / request.param, codec, count=25, size=(96, 64), options=options)
    return cut_off(path, 0.6)


def test_a_broken_tail_is_an_error_with_its_time(broken):
    sound = []
    with (
        open_video(broken) as video,
        pytest.raises(DataError, match=r"broken from \d.\d\d s on .*--data.broken_tail=cut"),
    ):
        sound += (number_of(frame.pixels) for frame in video.iter_frames())
    assert sound == list(range(len(sound)))
    assert 2 < len(sound) < 20
    assert video.broken_seconds == pytest.approx(len(sound) / RATE_HZ)


def test_a_clip_before_a_broken_tail_is_read(broken):
    assert numbers_of(read(broken, [0.05, 0.15])) == [0, 1]
    with pytest.raises(DataError, match="broken from"):
        read(broken, [0.05, 2.35])


def test_a_broken_tail_is_cut_off(broken):
    with open_video(broken, broken_tail="cut") as video:
        sound = [number_of(frame.pixels) for frame in video.iter_frames()]
        assert sound == list(range(len(sound)))
        assert video.broken_seconds == pytest.approx(len(sound) / RATE_HZ)
        assert numbers_of(video.read_frames([2.4, 0.15])) == [sound[-1], 1]


def test_a_damaged_spot_is_no_tail(tmp_path):
    path = write_video(tmp_path / "x.mkv", "mjpeg", count=25)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    frames = frames_of(path)
    assert 15 < len(frames) < 25
    assert number_of(frames[-1].pixels) == 24
    assert all(one.time_seconds < two.time_seconds for one, two in pairwise(frames))


def write_png(path):
    Image.fromarray(picture(3, 9, 6)).save(path, format="PNG")


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (lambda path: path.touch(), "the file is empty"),
        (lambda path: path.write_text("00:00:01,000 --> 00:00:02,000\n" * 99), "is not a video"),
        (lambda path: path.write_text("#EXTM3U\n#EXTINF:1\nother.mp4\n"), "is not a video"),
        (write_png, "is a still picture"),
        (write_audio, "has audio only"),
        (lambda path: write_video(path, count=0), "has neither frames nor sound"),
        (lambda path: cut_off(write_video(path), 0.6), "cut off before its index was written"),
        (Path.mkdir, "a folder without pictures is no video"),
    ],
)
def test_what_is_no_video_is_named(tmp_path, write, match):
    path = tmp_path / "x.mp4"
    write(path)
    with pytest.raises(DataError, match=rf"{path}: .*{match}"):
        open_video(path)


@pytest.mark.parametrize(
    ("option", "value"), [("frame_rate_hz", 0.0), ("frame_rate_hz", float("inf")), ("threads", 0)]
)
def test_options_out_of_range_are_named(tmp_path, option, value):
    with pytest.raises(ConfigError, match=f"{option}={value}"):
        open_video(tmp_path, **{option: value})


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"x.mp4: does not exist\. Give the path of a video"):
        open_video(tmp_path / "x.mp4")


def test_the_cover_of_a_record_is_no_video(tmp_path):
    path = tmp_path / "x.mp4"
    cover = picture(3, 16, 16)
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        still = container.add_stream("mjpeg", rate=1)
        still.width = still.height = 16
        still.pix_fmt = "yuvj420p"
        still.disposition = av.stream.Disposition.attached_pic
        container.mux(still.encode(av.VideoFrame.from_ndarray(cover, format="rgb24")))
        container.mux(still.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with pytest.raises(DataError, match="audio only"):
        open_video(path)
