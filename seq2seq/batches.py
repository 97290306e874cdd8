"""What travels between the parts: a batch from the data, a memory from the encoder, predictions."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class TextInput(NamedTuple):
    """A batch of token sequences, as a text encoder reads them.

    Attributes:
        tokens: Ids ending in ``EOS_ID`` and padded with ``PAD_ID``, int64 ``(batch, source)``.
        lengths: Number of real tokens, at least 1, int64 ``(batch,)``.
    """

    tokens: Tensor
    lengths: Tensor


class VideoInput(NamedTuple):
    """A batch of clips, as a video encoder reads them.

    Attributes:
        frames: uint8 ``(batch, clips, time, channels, height, width)``, or a frozen network's
            features of them, float16 ``(batch, clips, time, cells, channels)`` with the cells of
            its grid row by row; beyond ``lengths`` anything. Training has one clip of each video.
        lengths: Number of real frames, at least 1, int64 ``(batch, clips)``.
    """

    frames: Tensor
    lengths: Tensor


class Batch(NamedTuple):
    """One batch, whatever the modality.

    Attributes:
        inputs: What the task's encoder takes: a ``TextInput``, a tensor of pictures, ...
        target: Ids ending in ``EOS_ID`` and padded with ``PAD_ID``, int64 ``(targets, time)``;
            None when only the inputs are known.
        indices: Position of each example in its corpus, int64 ``(batch,)``.
        references: The raw target texts of each example, for scoring what was decoded.
        rows: Which input each target belongs to, int64 ``(targets,)``, where an input has several
            targets and is encoded once for all of them; None where each has one.
        problems: Why each input could not be used; None where it could, and empty where all could.
            In the place of one that could not is something blank.
    """

    inputs: Any
    target: Tensor | None
    indices: Tensor
    references: tuple[tuple[str, ...], ...] = ()
    rows: Tensor | None = None
    problems: tuple[str | None, ...] = ()

    def example(self, row: int) -> "Batch":
        """Return one example as a batch of its own, on the CPU."""

        def select(part: Tensor) -> Tensor:
            return part[row : row + 1].cpu()

        inputs, target, rows = self.inputs, self.target, self.rows
        if rows is not None:
            is_own = rows == row
            rows = rows.new_zeros(int(is_own.sum())).cpu()
            target = None if target is None else target[is_own].cpu()
        elif target is not None:
            target = select(target)
        return Batch(
            select(inputs) if isinstance(inputs, Tensor) else type(inputs)(*map(select, inputs)),
            target,
            select(self.indices),
            self.references[row : row + 1],
            rows,
        )


class SeriesBatch(NamedTuple):
    """One batch of windows of series.

    Attributes:
        values: In the units of the data, 0 where missing, float64 ``(batch, time, channels)``.
        is_known: False where a value is missing or the row is padded, bool
            ``(batch, time, channels)``.
        indices: Position of each window in its split, int64 ``(batch,)``.
        warm_up: How many of the leading steps may be read before the model runs free; what comes
            after them is what a free-running forecast is scored on. All of them in training.
        is_continued: True where row i goes on right after row i of the batch before: the state is
            carried over, detached (truncated back-propagation through time).
    """

    values: Tensor
    is_known: Tensor
    indices: Tensor
    warm_up: int
    is_continued: bool = False


class Memory(NamedTuple):
    """What a decoder knows of its input.

    Attributes:
        values: What can be attended to, ``(batch, source, memory_size)``.
        mask: True on real positions, bool ``(batch, source)``.
        summary: The fixed-size context vector of the input, ``(batch, memory_size)``.
        keys: What an attention compares its query with, ``(batch, source, key_size)``; filled in
            once per batch by ``Decoder.prepare``.
    """

    values: Tensor
    mask: Tensor
    summary: Tensor
    keys: Tensor | None = None

    @staticmethod
    def nothing(rows: int, like: Tensor) -> "Memory":
        """Return the memory of rows that have no input, on the device and of the type of a tensor.

        Args:
            rows: How many.
            like: Any tensor.
        """
        mask = torch.zeros(rows, 0, dtype=torch.bool, device=like.device)
        return Memory(like.new_zeros(rows, 0, 0), mask, like.new_zeros(rows, 0))

    def select(self, index: Tensor) -> "Memory":
        """Return the rows of ``index``, int64 ``(rows,)``, in that order."""
        keys = None if self.keys is None else self.keys[index]
        return Memory(self.values[index], self.mask[index], self.summary[index], keys)


class Prediction(NamedTuple):
    """One decoded output.

    Attributes:
        text: What the user reads.
        score: Length-normalised log-probability.
        tokens: Target tokens, with the end of sequence where the search reached it.
        token_log_probs: Log-probability of each token.
        attention: Weights ``(tokens, source)``; None unless asked for.
        source_tokens: What the columns of ``attention`` and of ``contributions`` stand for, where
            they are words.
        grid: Rows and columns of cells that the columns of ``attention`` stand for, row by row,
            where they are parts of a picture.
        probabilities: Of each class at each step, given the steps before, ``(steps, classes)``,
            where the output is labels.
        classes: What the columns of ``probabilities`` stand for.
        contributions: How much each source token speaks for each of the labels, ``(steps,
            source)``; None unless asked for.
        seconds: When the frame is shown that this is the prediction after, where a video has one
            for each frame.
        error: Why there is no output, where the input could not be used.
    """

    text: str
    score: float
    tokens: list[str]
    token_log_probs: list[float]
    attention: Tensor | None = None
    source_tokens: list[str] | None = None
    grid: tuple[int, int] | None = None
    probabilities: Tensor | None = None
    classes: tuple[str, ...] | None = None
    contributions: Tensor | None = None
    seconds: float | None = None
    error: str | None = None


class Forecast(NamedTuple):
    """How series go on, in the units of the data.

    Attributes:
        values: What comes after the steps that were read, ``(batch, horizon, channels)``.
        deviation: Standard deviation of each of them, of the same shape; None where the model does
            not tell.
        one_step: Prediction of each step that was read, from the steps before it, ``(batch, time,
            channels)``; not a number at the first steps, which nothing comes before.
    """

    values: Tensor
    deviation: Tensor | None
    one_step: Tensor


NOTHING = Prediction(text="", score=0.0, tokens=[], token_log_probs=[])
"""What is predicted for an empty input, without asking the model."""
