"""Classification of a video while it is still going on."""

from collections.abc import Iterator
from math import floor
from pathlib import Path

import torch
from torch import Tensor

from seq2seq.batches import Prediction
from seq2seq.encoders.video import VideoEncoder, VideoState
from seq2seq.errors import ConfigError
from seq2seq.search import Hypothesis
from seq2seq.tasks.labelling import LabelTask
from seq2seq.tokenizers import FIRST_LABEL_ID
from seq2seq.videos import ClipSampling
from seq2seq.videos.base import EARLY_SECONDS
from seq2seq.videos.frames import FrameReader, PrepareFrame


class LabelStream:
    """Gives the posterior after each frame of a video, in constant memory.

    Args:
        task: A trained classifier, in evaluation mode.
        encoder: Its encoder.
        reader: How it reads frames.
        sampling: How it took clips in training.

    Raises:
        ConfigError: If it needs the whole video.
    """

    def __init__(
        self,
        task: LabelTask,
        encoder: VideoEncoder,
        reader: FrameReader,
        sampling: ClipSampling,
    ) -> None:
        layers = encoder.recurrence
        if task.decoder.attention is not None or (layers is not None and layers.directions == 2):
            raise ConfigError(
                "This classifier looks at whole videos: it has attention, or reads in both "
                "directions. To stream, train one with --model.attention none and "
                "--model.bidirectional false."
            )
        self._task = task
        self._encoder = encoder
        self._reader = reader
        self._sampling = sampling
        self._prepare: PrepareFrame | None = None
        self._state: VideoState | None = None

    @torch.inference_mode()
    def step(self, pixels: Tensor) -> Tensor:
        """Take the next frame.

        Args:
            pixels: RGB, uint8 ``(3, height, width)``, of any size.

        Returns:
            The probabilities of the classes given all frames so far, ``(label_steps, classes)``;
            those of a later label given the most probable labels before it.
        """
        task = self._task
        if self._prepare is None:
            self._prepare = self._reader.preparation.of_video(pixels)
        frame = self._prepare(pixels).unsqueeze(0).to(task.device)
        memory, self._state = self._encoder.step(frame, self._state)
        labels = torch.full((1, task.label_steps), FIRST_LABEL_ID, device=task.device)
        for step in range(task.label_steps):
            posterior = task.posterior([memory], labels)
            labels[:, step] = posterior[:, step].argmax(dim=-1) + FIRST_LABEL_ID
        return posterior[0].cpu()

    def follow(self, path: Path) -> Iterator[Prediction]:
        """Yield what a video shows, after each of its frames.

        Where training had a steady rate (``dense``), the first frame of each interval is taken, and
        none where the video is slower; else all frames are. A broken tail is cut off.

        Args:
            path: The video.

        Raises:
            DataError: If it cannot be read.
        """
        is_steady = self._sampling.sampling == "dense"
        next_interval = 0
        with self._reader.open(path) as video:
            for frame in video.iter_frames():
                seconds = frame.time_seconds
                interval = floor((seconds + EARLY_SECONDS) * self._sampling.frame_rate_hz)
                if not is_steady or interval >= next_interval:
                    next_interval = interval + 1
                    yield self._present(self.step(frame.pixels), seconds)
            self._reader.tell_cut(video)

    def _present(self, posterior: Tensor, seconds: float) -> Prediction:
        shares, classes = posterior.max(dim=-1)
        log_probs = shares.log().tolist()
        hypothesis = Hypothesis(
            tokens=(classes + FIRST_LABEL_ID).tolist(),
            score=sum(log_probs) / len(log_probs),
            token_log_probs=log_probs,
            attention=None,
            is_finished=True,
        )
        return self._task.label(hypothesis)._replace(
            probabilities=posterior, classes=self._task.class_names, seconds=seconds
        )
