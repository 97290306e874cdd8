"""Clips to memory: a network for frames, and a recurrence over them."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from seq2seq.batches import Memory, VideoInput
from seq2seq.encoders.frames import RawFrames
from seq2seq.encoders.grid import GridNetwork
from seq2seq.errors import ConfigError
from seq2seq.nn.conv_recurrent import ConvRecurrentStack, ConvRecurrentState, FrameNorm
from seq2seq.nn.dropout import SequenceDropout
from seq2seq.nn.recurrent import Cell, RecurrentStack, RecurrentState
from seq2seq.sequences import lengths_to_mask

Recurrence = Literal["conv", "vector", "none"]
Positions = Literal["frames", "cells"]
FrameNetwork = RawFrames | GridNetwork


class VideoState(NamedTuple):
    """What a stream carries from one frame to the next; never changed in place.

    Attributes:
        recurrent: Of the recurrence; None where there is none.
        total: Sum of the frames' vectors so far, ``(batch, size)``; None with a recurrence.
        previous: The frame before, where the network sees differences.
        frames: How many there were.
    """

    recurrent: ConvRecurrentState | RecurrentState | None
    total: Tensor | None
    previous: Tensor | None
    frames: int


class VideoEncoder(nn.Module):
    """Looks at clips; one memory position per frame, or per cell of each frame.

    Args:
        network: Makes a grid of features of each frame.
        recurrence: ``ConvRecurrentStack`` over the grids; ``RecurrentStack`` over their means, one
            vector per frame; or None: then the summary is the mean over the frames, which does not
            know their order.
        memory_size: Width of the memory.
        parts: A grid is described by the mean and the maximum of each channel in ``parts`` by
            ``parts`` parts of it: the more, the better it is known where something is.
        differences: Let the network see the difference to the frame before, in further channels.
        positions: What a memory position is: one of the ``frames``, or one of the ``cells`` of a
            frame, which only a convolutional recurrence tells apart.
        dropout: Dropout on the memory.

    Raises:
        ConfigError: If ``positions`` and ``recurrence`` do not fit together.

    Source: Shi et al. 2015, arXiv:1506.04214; Ballas et al. 2016, arXiv:1511.06432.
    """

    def __init__(
        self,
        network: FrameNetwork,
        recurrence: ConvRecurrentStack | RecurrentStack | None,
        *,
        memory_size: int,
        parts: int = 1,
        differences: bool = False,
        positions: Positions = "frames",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if positions == "cells" and not isinstance(recurrence, ConvRecurrentStack):
            raise ConfigError(
                "positions='cells' needs recurrence='conv': else there is one vector per frame. "
                "Choose positions='frames'."
            )
        self.network = network
        self.recurrence = recurrence
        self.positions = positions
        self.parts = parts
        self.differences = differences
        channels = network.channels if recurrence is None else recurrence.output_size
        is_vector = isinstance(recurrence, RecurrentStack)
        size = channels if is_vector else description_size(channels, parts)
        self.projection = nn.Linear(size, memory_size)
        self.norm = nn.LayerNorm(memory_size)
        self.cell_projection = (
            nn.Linear(channels, memory_size) if positions == "cells" else nn.Identity()
        )
        self.dropout = SequenceDropout(dropout)

    def forward(self, inputs: VideoInput) -> Memory:
        """Encode a batch; the clips of a video are rows of their own, one after the other.

        Args:
            inputs: ``(batch, clips, time, ...)``.

        Returns:
            A memory of ``batch * clips`` rows. The summary is what the last real frame left; with
            two directions, what the first one left in the backward direction, too.
        """
        frames, lengths = inputs.frames.flatten(0, 1), inputs.lengths.flatten()
        if self.differences:
            frames = with_differences(frames, frames[:, :1])
        grids = self.network_grids(frames.flatten(0, 1))
        grids = grids.view(*frames.shape[:2], *grids.shape[1:])
        mask = lengths_to_mask(lengths, frames.shape[1])
        if isinstance(self.recurrence, ConvRecurrentStack):
            outputs, _ = self.recurrence(grids, lengths=lengths)
            vectors = describe(outputs, self.parts)
        else:
            vectors = describe(grids, self.parts)
            if self.recurrence is not None:
                vectors, _ = self.recurrence(vectors, lengths=lengths)
        summary = self.norm(self.projection(self._final(vectors, mask, lengths)))
        if self.positions == "cells":
            cells = outputs.flatten(3).transpose(2, 3).flatten(1, 2)  # (rows, time * cells, size)
            values = self.norm(self.cell_projection(cells))
            mask = mask.repeat_interleave(outputs.shape[3] * outputs.shape[4], dim=1)
        else:
            values = self.norm(self.projection(vectors))
        return Memory(self.dropout(values), mask, self.dropout(summary.unsqueeze(1)).squeeze(1))

    def network_grids(self, frames: Tensor) -> Tensor:
        """Return the grids of frames, ``(frames, channels, rows, columns)``.

        Args:
            frames: ``(frames, channels, height, width)``; or what the ``extract`` of a frozen
                network gave for them, ``(frames, cells, channels)``.
        """
        if not isinstance(self.network, GridNetwork):
            grids: Tensor = self.network(frames)
            return grids
        cells = frames if frames.ndim == 3 else self.network.extract(frames)
        cells = self.network.wait_for_fine_tuning(cells.to(self.projection.weight.dtype))
        return cells.transpose(1, 2).reshape(*cells.shape[::2], *self.network.grid)

    def step(self, frame: Tensor, state: VideoState | None = None) -> tuple[Memory, VideoState]:
        """Take the next frame of a stream.

        Args:
            frame: As the network takes it, ``(batch, channels, height, width)``.
            state: What the previous frame left; None at the first.

        Returns:
            A memory whose summary is that of the frames so far, and whose only position is this
            frame; and the next state.

        Raises:
            ConfigError: If the recurrence has two directions.
        """
        previous = frame if state is None else state.previous
        if self.differences:
            assert previous is not None
            both = with_differences(frame.unsqueeze(1), previous.unsqueeze(1)).squeeze(1)
            grids, previous = self.network_grids(both), frame
        else:
            grids, previous = self.network_grids(frame), None
        count = 1 if state is None else state.frames + 1
        carried = None if state is None else state.recurrent
        if isinstance(self.recurrence, ConvRecurrentStack):
            assert carried is None or isinstance(carried, ConvRecurrentState)
            output, recurrent = self.recurrence.step(grids, carried)
            vectors = describe(output.unsqueeze(1), self.parts)
            following = VideoState(recurrent, None, previous, count)
        elif self.recurrence is not None:
            if self.recurrence.directions == 2:
                raise ConfigError(
                    "A bidirectional recurrence reads a clip from its end too and cannot go frame "
                    "by frame. Train with bidirectional=false to stream."
                )
            vectors, parts = self.recurrence(describe(grids.unsqueeze(1), self.parts), carried)
            following = VideoState(parts, None, previous, count)
        else:
            vectors = describe(grids.unsqueeze(1), self.parts)
            total = vectors[:, 0].float()  # bfloat16 stops growing after some hundred frames
            if state is not None:
                assert state.total is not None
                total = state.total + total
            following = VideoState(None, total, previous, count)
            vectors = (total / count).to(vectors.dtype).unsqueeze(1)
        values = self.norm(self.projection(vectors))
        mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        return Memory(self.dropout(values), mask, values[:, 0]), following

    def _final(self, vectors: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        if self.recurrence is None:
            kept = vectors.masked_fill(~mask.unsqueeze(2), 0)
            return kept.sum(dim=1) / lengths.unsqueeze(1)
        last = vectors[torch.arange(len(vectors), device=vectors.device), lengths - 1]
        if self.recurrence.directions == 1:
            return last
        # Of each description the backward half of the channels, which ends at the first frame.
        half = self.recurrence.output_size // 2
        if isinstance(self.recurrence, ConvRecurrentStack):
            half *= self.parts**2
        is_backward = torch.arange(vectors.shape[2], device=vectors.device) // half % 2 == 1
        return torch.where(is_backward, vectors[:, 0], last)


def build_recurrence(
    kind: Recurrence,
    cell: Cell,
    channels: int,
    hidden_size: int,
    num_layers: int,
    *,
    parts: int,
    bidirectional: bool,
    norm: FrameNorm,
    dropout: float,
    **conv_options: Any,
) -> ConvRecurrentStack | RecurrentStack | None:
    """Return what a ``VideoEncoder`` has as its recurrence.

    Args:
        kind: ``conv`` over the grids of the frames, ``vector`` over their descriptions, or
            ``none``, for which there is None.
        cell: Kind of recurrent cell.
        channels: Channels of the grids.
        hidden_size: Channels or width of the state, per direction.
        num_layers: Number of layers.
        parts: Parts of a grid along each side, as ``describe`` has them.
        bidirectional: Read in both directions.
        norm: Normalise the output of every layer.
        dropout: Dropout between layers.
        **conv_options: Further options of ``ConvRecurrentStack``, for ``conv``.
    """
    if kind == "conv":
        return ConvRecurrentStack(
            cell,
            channels,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            norm=norm,
            dropout=dropout,
            **conv_options,
        )
    if kind == "vector":
        return RecurrentStack(
            cell,
            description_size(channels, parts),
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            layer_norm=norm == "layer",
        )
    return None


def with_differences(frames: Tensor, before: Tensor) -> Tensor:
    """Return frames with their difference to the one before in further channels.

    Args:
        frames: ``(batch, time, channels, height, width)``.
        before: The frame before the first, ``(batch, 1, channels, height, width)``.
    """
    numbers = frames.float()
    previous = torch.cat([before.float(), numbers[:, :-1]], dim=1)
    return torch.cat([numbers, numbers - previous], dim=2)


def describe(grids: Tensor, parts: int) -> Tensor:
    """Return the mean and the maximum of each channel in each part of a grid.

    Args:
        grids: ``(batch, time, channels, rows, columns)``.
        parts: Parts along each side.

    Returns:
        ``(batch, time, description_size(channels, parts))``.
    """
    frames = grids.flatten(0, 1)
    means = nn.functional.adaptive_avg_pool2d(frames, parts)
    maxima = nn.functional.adaptive_max_pool2d(frames, parts)
    return torch.cat([means, maxima], dim=1).view(*grids.shape[:2], -1)


def description_size(channels: int, parts: int) -> int:
    """Return how many numbers ``describe`` gives for a frame."""
    return 2 * channels * parts**2
