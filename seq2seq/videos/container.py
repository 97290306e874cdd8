"""Video files of any container and codec, read with PyAV."""

import math
import re
from collections.abc import Generator, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import av
import torch
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from torch import Tensor

from seq2seq.errors import DataError
from seq2seq.pictures import open_picture
from seq2seq.videos.base import EARLY_SECONDS, BrokenTail, Pending, Video

# By format: where FFmpeg may look at anything, a playlist named .mp4 opens other files, and a still
# picture is a video.
_FORMATS = (
    *("asf", "avi", "dv", "flv", "gif", "h264", "hevc", "ivf", "matroska", "mov", "mpeg"),
    *("mpegts", "mpegvideo", "mxf", "nut", "ogg", "rm", "yuv4mpegpipe"),
)
_FALLBACK_RATE_HZ = 25.0
# What may be missing at the end before the tail counts as broken: containers round and pad.
_MISSING_SECONDS = 0.5
_MISSING_SHARE = 0.05

_Timed = tuple[float, VideoFrame]  # with its time stamp in the container, seconds


class ContainerVideo(Video):
    """A video file, held open until ``close``. Pixels are taken as square.

    Args:
        path: The file.
        threads: How many decode it.
        broken_tail: Whether a broken tail is an error, or is cut off.

    Raises:
        DataError: If it cannot be opened, has no video, or no frame of it can be decoded.
    """

    def __init__(self, path: Path, threads: int, broken_tail: BrokenTail) -> None:
        super().__init__(path)
        self._threads = threads
        self._broken_tail = broken_tail
        self._failure: tuple[float, str] | None = None  # the last one: its time stamp and reason
        self._from_start: Iterator[_Timed] | None = self._open()

    def close(self) -> None:
        """Let go of the file; nothing can be read any more."""
        self._from_start = None
        self._container.close()

    @property
    def _stream(self) -> VideoStream:
        # Not kept: the threads of its decoder live as long as it does.
        return _video_stream(self.path, self._container)

    @property
    def duration_seconds(self) -> float:
        """As the container declares it; where it does not, its packets are read once for it."""
        return self._declared_seconds or self._whole_seconds or self._measured_seconds()

    def _open(self) -> Iterator[_Timed]:
        """Open the file, decode the first frame, from which time counts, and return all of them.

        Not from the start time that the container declares: that of AVI is a frame too early.
        """
        self._container = _open_container(self.path)
        try:
            stream = self._stream
            stream.codec_context.thread_count = self._threads
            stream.thread_type = "AUTO"
            rate = stream.average_rate or stream.guessed_rate or _FALLBACK_RATE_HZ
            self._interval_seconds = 1 / float(rate)
            # Kept, because a stream must not be asked any more when its container is closed.
            self._declared_seconds = _declared_seconds(self._container, stream)
            self._whole_seconds = _whole_seconds(self._container)
            frames = self._timed()
            first = next(frames, None)
            if first is None:
                raise DataError(
                    f"{self.path}: no frame of it can be decoded. Get the file again, or leave it "
                    "out."
                )
        except BaseException:
            self._container.close()
            raise
        self._origin_seconds, frame = first
        self._has_time_stamps = frame.pts is not None
        return chain([first], frames)

    def _pending(self, start_seconds: float) -> Generator[Pending]:
        for seconds, frame in self._frames_from(start_seconds):
            yield Pending(seconds - self._origin_seconds, partial(self._pixels, frame))

    def _frames_from(self, start_seconds: float) -> Iterator[_Timed]:
        """Yield the frames with their time stamps in the container, from ``start_seconds`` on."""
        wanted = start_seconds + self._origin_seconds
        back = 0.0
        while self._has_time_stamps and back < start_seconds:
            frames = self._seek(wanted - back)
            first = next(frames, None)
            if first is not None and first[0] <= wanted + EARLY_SECONDS:
                return chain([first], frames)
            # The index points to a key frame that is shown later, or to where the file is broken.
            back = 2 * back + 1
        frames_from_start, self._from_start = self._from_start, None
        if frames_from_start is None:
            self._container.close()
            frames_from_start = self._open()
        return frames_from_start

    def _seek(self, seconds: float) -> Iterator[_Timed]:
        """Go to the key frame before a time, or as near to it as the container can."""
        self._from_start = None
        stream = self._stream
        assert stream.time_base is not None  # where there are time stamps
        try:
            self._container.seek(int(seconds / stream.time_base), stream=stream)
        except av.FFmpegError:  # a file without an index
            return iter(())
        return self._timed()

    def _timed(self) -> Iterator[_Timed]:
        """Yield the frames with their time stamps, which increase; check the tail at the end."""
        last: float | None = None
        longest = self._interval_seconds
        for frame in self._sound_frames():
            seconds = 0.0 if frame.pts is None else frame.time
            if last is not None:
                if seconds <= last:  # none, or the clock was set back where files were joined
                    seconds = last + self._interval_seconds
                longest = max(longest, seconds - last)
            yield seconds, frame
            last = seconds
        if last is not None:
            self._check_tail(last, longest)

    def _sound_frames(self) -> Iterator[VideoFrame]:
        self._failure = None
        try:
            for packet in self._container.demux(self._stream):
                if packet.is_corrupt:  # half of it is there, and some decoders would make it up
                    self._failure = _time_of(packet), "the file ends within a frame"
                    continue
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    self._failure = _time_of(packet), str(error.strerror)
                else:
                    yield from (frame for frame in frames if not frame.is_corrupt)
        except av.FFmpegError as error:
            self._failure = math.inf, str(error.strerror)

    def _check_tail(self, last: float, longest: float) -> None:
        """Note or report that frames are missing at the end, if any are.

        Args:
            last: Time stamp of the last sound frame.
            longest: What a sound frame may last.
        """
        end = last + self._interval_seconds - self._origin_seconds
        declared = self._declared_seconds or 0.0
        allowed = max(_MISSING_SECONDS, _MISSING_SHARE * declared, longest)
        failed, reason = self._failure or (-math.inf, "")
        if failed <= last:
            if declared - end <= allowed:
                return
            reason = f"the file ends there, and declares {declared:.2f} s"
        self.broken_seconds = end
        if self._broken_tail == "error":
            raise DataError(
                f"{self.path}: broken from {end:.2f} s on ({reason}). Get the file again, or use "
                "what comes before with --data.broken_tail=cut."
            )

    def _measured_seconds(self) -> float:
        end, count = -math.inf, 0
        with _open_container(self.path) as container:
            try:
                for packet in container.demux(_video_stream(self.path, container)):
                    if packet.size:
                        count += 1
                        if packet.pts is not None:
                            end = max(end, _time_of(packet))
            except av.FFmpegError:  # a broken tail; reading the frames will tell
                pass
        if end > self._origin_seconds:
            return end + self._interval_seconds - self._origin_seconds
        return count * self._interval_seconds

    def _pixels(self, frame: VideoFrame) -> Tensor:
        array = frame.to_ndarray(format="rgb24", threads=self._threads)  # (height, width, 3)
        pixels = torch.from_numpy(array).permute(2, 0, 1)
        turns = round(frame.rotation / 90)  # counter-clockwise, as rot90 counts
        return torch.rot90(pixels, turns, dims=(1, 2)).contiguous()


def _declared_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """Return the length that is declared of a video stream; audio beside it may be longer."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:  # of Matroska
        hours, minutes, seconds = map(float, tag.groups())
        return (hours * 60 + minutes) * 60 + seconds
    return _whole_seconds(container) if len(container.streams) == 1 else None


def _whole_seconds(container: InputContainer) -> float | None:
    return container.duration / av.time_base if container.duration else None


def _time_of(packet: "Packet[VideoStream]") -> float:
    """Return the time stamp of a packet; infinity where it has none."""
    stamp = packet.dts if packet.pts is None else packet.pts
    return math.inf if stamp is None else float(stamp * packet.time_base)


def _open_container(path: Path) -> InputContainer:
    try:
        return av.open(
            str(path.absolute()),  # else a file named 12:30.mp4 would be a protocol
            container_options={"format_whitelist": ",".join(_FORMATS)},
            metadata_errors="replace",  # old titles are in any encoding
        )
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{path}: {_reason(path, error)}") from error


def _reason(path: Path, error: Exception) -> str:
    if not path.is_file():
        return "is not a file. Give the path of a video."
    if isinstance(error, PermissionError):
        return "cannot be read (permission denied). Give a file that you may read."
    if path.stat().st_size == 0:
        return "the file is empty. Get it again, or leave it out."
    try:
        open_picture(path)
    except DataError:
        return (
            "is not a video of a known format, or the recording was cut off before its index was "
            "written. Get the file again, convert it, or leave it out."
        )
    return "is a still picture. Give a video, or a folder of pictures."


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # the cover of a record
            if getattr(stream, "codec_context", None) is None:
                raise DataError(f"{path}: is in a codec that is not known. Convert it.")
            return stream
    what = "audio only" if container.streams.audio else "neither frames nor sound"
    raise DataError(f"{path}: has {what}. Leave it out.")
