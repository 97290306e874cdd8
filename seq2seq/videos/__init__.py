"""Videos as people have them: files of any container, folders of frames, and arrays."""

from seq2seq.videos.base import BrokenTail, Frame, Video
from seq2seq.videos.clips import ClipSampling
from seq2seq.videos.files import open_video
from seq2seq.videos.find import find_videos, is_video_name

__all__ = [
    "BrokenTail",
    "ClipSampling",
    "Frame",
    "Video",
    "find_videos",
    "is_video_name",
    "open_video",
]
