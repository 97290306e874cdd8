"""Tiny videos, encoded on the spot: frame ``n`` can be told by its brightness."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from torch import Tensor

RATE_HZ = 10
# Name and codec of each kind; all of them are in the wheels of PyAV.
CONTAINERS = {
    "h264.mp4": "libx264",
    "mpeg4.mp4": "mpeg4",
    "mpeg4.avi": "mpeg4",
    "mjpeg.avi": "mjpeg",
    "h264.mkv": "libx264",
    "ffv1.mkv": "ffv1",
    "vp9.webm": "libvpx-vp9",
    "h264.mov": "libx264",
    "mpeg2.mpg": "mpeg2video",
    "h264.ts": "libx264",
    "h264.flv": "libx264",
    "raw.h264": "libx264",
    "wmv2.asf": "wmv2",
}
_FORMATS = {"ffv1": "yuv444p", "mjpeg": "yuvj420p"}
_STEP = 9


def picture(number: int, width: int, height: int) -> np.ndarray:
    """Return frame ``number``: grey with a little noise; a corner, top left, is red."""
    noise = np.random.default_rng(number).integers(-4, 5, (height, width, 1))
    frame = (20 + _STEP * number + noise).repeat(3, axis=2).astype(np.uint8)
    frame[: height // 4, : width // 4] = (255, 0, 0)
    return frame


def number_of(pixels: Tensor) -> int:
    """Return which frame it is, going by the middle of the picture."""
    _, height, width = pixels.shape
    middle = pixels[:, height // 2 :, width // 2 :].float().mean().item()
    return round((middle - 20) / _STEP)


def numbers_of(clip: Tensor) -> list[int]:
    return [number_of(frame) for frame in clip]


def write_video(
    path: Path,
    codec: str = "libx264",
    *,
    count: int = 12,
    size: tuple[int, int] = (48, 32),
    times_ms: Sequence[int] | None = None,
    rotation: int = 0,
    has_audio: bool = False,
    key_every: int = 5,
    b_frames: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a video with steady frames, or with frames at some times.

    Args:
        path: Its ending tells the container.
        codec: Name of the encoder.
        count: Number of frames, at most 25.
        size: Width and height.
        times_ms: Time stamps, as many as frames.
        rotation: What players turn the frames by, degrees counter-clockwise.
        has_audio: Whether there are two seconds of silence, too.
        key_every: Frames from a key frame to the next.
        b_frames: How many frames in a row may be stored out of order.
        options: Of the container.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream(codec, rate=RATE_HZ)
        video.width, video.height = size
        video.pix_fmt = _FORMATS.get(codec, "yuv420p")
        video.gop_size = key_every
        video.thread_count = 1
        video.codec_context.max_b_frames = b_frames
        tick = Fraction(1, RATE_HZ) if times_ms is None else Fraction(1, 1000)
        if times_ms is not None:
            video.codec_context.time_base = tick
        if rotation:
            video.set_display_rotation(rotation)
        sound = container.add_stream("aac", rate=8000, layout="mono") if has_audio else None
        container.start_encoding()  # writes the header even if no frame follows
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts = number if times_ms is None else times_ms[number]
            frame.time_base = tick
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if sound is not None:
            _mux_silence(container, sound, seconds=2)
    return path


def write_audio(path: Path) -> Path:
    """Write a file that has sound and no video."""
    with av.open(str(path), "w") as container:
        _mux_silence(container, container.add_stream("aac", rate=8000, layout="mono"), seconds=1)
    return path


def write_gif(path: Path, durations_ms: Sequence[int], size: tuple[int, int] = (12, 8)) -> Path:
    """Write an animated GIF."""
    frames = [Image.fromarray(picture(n, *size)) for n in range(len(durations_ms))]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=list(durations_ms))
    return path


def cut_off(path: Path, share: float) -> Path:
    """Leave only the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    return path


def _mux_silence(container: Any, stream: Any, seconds: int) -> None:
    samples = np.zeros((1, 1024), dtype=np.float32)
    for block in range(seconds * 8000 // 1024):
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 8000
        frame.pts = block * 1024
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
