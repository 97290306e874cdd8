"""Stacks of convolutional recurrent cells over the frames of a video."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seq2seq.errors import ConfigError, raise_together
from seq2seq.nn.conv_cells import CONV_CELLS
from seq2seq.nn.dropout import SequenceDropout
from seq2seq.nn.recurrent import Cell, RecurrentState
from seq2seq.sequences import lengths_to_mask

FrameNorm = Literal["none", "layer", "group"]
GROUP_CHANNELS = 8
"""Channels that ``norm="group"`` normalises together."""


class ConvRecurrentState(NamedTuple):
    """Everything a stack carries from one frame to the next; never changed in place.

    Attributes:
        layers: The parts of each layer's state, each ``(directions, batch, hidden, height,
            width)``: hidden alone, or hidden and cell for an LSTM. Layers differ in height and
            width where they have a stride.
    """

    layers: tuple[RecurrentState, ...]

    def select(self, index: Tensor) -> "ConvRecurrentState":
        """Return the rows of ``index``, int64 ``(rows,)``, in that order."""
        return ConvRecurrentState(
            tuple(tuple(part.index_select(1, index) for part in parts) for parts in self.layers)
        )

    def detach(self) -> "ConvRecurrentState":
        """Return the same state, cut off from the graph for truncated back-propagation."""
        return ConvRecurrentState(
            tuple(tuple(part.detach() for part in parts) for parts in self.layers)
        )


class ConvRecurrentStack(nn.Module):
    """Layers of one convolutional recurrent cell over frames.

    Each layer convolves all its frames in one call before the recurrence goes through them.

    Args:
        cell: Kind of recurrent cell.
        input_size: Channels of a frame.
        hidden_size: Channels of the state, per direction.
        num_layers: Number of layers.
        kernel_size: Width and height of all kernels; odd, so that a kernel has a middle.
        strides: Spatial stride of each layer's input convolution; 1 everywhere when None.
        bidirectional: Read in both directions; the output has ``2 * hidden_size`` channels.
        norm: Normalise the output of every layer, each frame by itself: all values together
            (``"layer"``), or groups of ``GROUP_CHANNELS`` channels (``"group"``).
        dropout: Dropout between layers.
        peepholes: Let the gates of an LSTM look at the cell.
        checkpoint_steps: Keep only the states of training and compute the rest of this many frames
            at a time again in the backward pass: less memory, one more forward pass. None keeps
            everything. A tanh RNN has little beside its states and gains nothing.
        tbptt_steps: Truncated back-propagation through time: cut the gradient of the state at every
            so many frames, counted from the first; the state itself goes on. None cuts nowhere.

    Raises:
        ConfigError: If there is no such cell or norm, or the options do not fit together.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        kernel_size: int = 3,
        strides: Sequence[int] | None = None,
        bidirectional: bool = False,
        norm: FrameNorm = "none",
        dropout: float = 0.0,
        peepholes: bool = False,
        checkpoint_steps: int | None = None,
        tbptt_steps: int | None = None,
    ) -> None:
        super().__init__()
        strides = [1] * num_layers if strides is None else list(strides)
        self.directions = 2 if bidirectional else 1
        self.output_size = hidden_size * self.directions
        problems = [
            *_cell_problems(cell, peepholes),
            *_size_problems(num_layers, kernel_size, strides),
            *_step_problems("checkpoint_steps", checkpoint_steps, "keep everything"),
            *_step_problems("tbptt_steps", tbptt_steps, "cut nowhere"),
            *_norm_problems(norm, self.output_size),
        ]
        raise_together(problems, ConfigError, "The convolutional recurrence cannot be built:")
        self.num_layers = num_layers
        self.checkpoint_steps = checkpoint_steps
        self.tbptt_steps = tbptt_steps
        build = partial(CONV_CELLS[cell], **({"peepholes": True} if peepholes else {}))
        self.layers = nn.ModuleList(
            nn.ModuleList(
                build(self.output_size if layer else input_size, hidden_size, kernel_size, stride)
                for _ in range(self.directions)
            )
            for layer, stride in enumerate(strides)
        )
        self.norms = nn.ModuleList(_build_norm(norm, self.output_size) for _ in strides)
        self.dropout = SequenceDropout(dropout)

    def forward(
        self,
        frames: Tensor,
        state: ConvRecurrentState | None = None,
        *,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, ConvRecurrentState]:
        """Run over whole clips, or over a window of them.

        Args:
            frames: ``(batch, time, input_size, height, width)``.
            state: Where to go on from; zeros when None.
            lengths: Number of real frames, int64 ``(batch,)``; all of them when None. Outputs
                beyond are zero and the state is that of the last real frame.

        Returns:
            Outputs ``(batch, time, output_size, height, width)``, smaller by the strides, and the
            state after the last real frame.
        """
        is_real = None
        if lengths is not None:
            is_real = lengths_to_mask(lengths.to(frames.device), frames.shape[1])
        outputs, states = frames, []
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            if number:
                outputs = self.dropout(outputs)
            assert isinstance(layer, nn.ModuleList)
            runs = [
                self._run(cell, outputs, _part(state, number, direction), is_real, direction == 1)
                for direction, cell in enumerate(layer)
            ]
            outputs = torch.cat([output for output, _ in runs], dim=2)
            outputs = norm(outputs.flatten(0, 1)).unflatten(0, frames.shape[:2])
            if is_real is not None:
                outputs = outputs.masked_fill(~is_real[:, :, None, None, None], 0)
            parts = zip(*(final for _, final in runs), strict=True)
            states.append(tuple(torch.stack(part) for part in parts))
        return outputs, ConvRecurrentState(tuple(states))

    def step(
        self, frame: Tensor, state: ConvRecurrentState | None = None
    ) -> tuple[Tensor, ConvRecurrentState]:
        """Advance by one frame, as a stream brings them.

        Args:
            frame: ``(batch, input_size, height, width)``.
            state: The state that the previous frame left; None at the first.

        Returns:
            The output ``(batch, output_size, height, width)``, smaller by the strides, and the
            next state.

        Raises:
            ConfigError: If the stack is bidirectional.
        """
        if self.directions == 2:
            raise ConfigError(
                "A bidirectional recurrence reads a clip from its end too and cannot go frame by "
                "frame. Train with bidirectional=false to stream."
            )
        outputs, state = self(frame.unsqueeze(1), state)
        return outputs.squeeze(1), state

    def _run(
        self,
        cell: nn.Module,
        frames: Tensor,
        state: RecurrentState | None,
        is_real: Tensor | None,
        is_reversed: bool,
    ) -> tuple[Tensor, RecurrentState]:
        """Run one cell over all frames: windows that cut the gradient, segments that recompute."""
        run: Callable[..., tuple[Tensor, RecurrentState]] = cell
        if self.checkpoint_steps is not None:
            # A cell draws no random numbers.
            run = partial(checkpoint, cell, use_reentrant=False, preserve_rng_state=False)
        outputs: list[Tensor] = []
        for window, window_mask in _in_turn(frames, is_real, self.tbptt_steps, is_reversed):
            if outputs:
                assert state is not None
                state = tuple(part.detach() for part in state)
            turns = _in_turn(window, window_mask, self.checkpoint_steps, is_reversed)
            for segment, mask in turns:
                output, state = run(segment, state, mask, is_reversed)
                outputs.append(output)
        assert state is not None
        if is_reversed:
            outputs.reverse()
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1), state


def _in_turn(
    frames: Tensor, is_real: Tensor | None, steps: int | None, is_reversed: bool
) -> list[tuple[Tensor, Tensor | None]]:
    """Return so many frames at a time, and their masks, in the order in which they are read."""
    if steps is None:
        return [(frames, is_real)]
    parts = torch.split(frames, steps, dim=1)
    masks = [None] * len(parts) if is_real is None else torch.split(is_real, steps, dim=1)
    turns = list(zip(parts, masks, strict=True))
    return turns[::-1] if is_reversed else turns


def _part(state: ConvRecurrentState | None, layer: int, direction: int) -> RecurrentState | None:
    return None if state is None else tuple(part[direction] for part in state.layers[layer])


def _build_norm(norm: FrameNorm, size: int) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    return nn.GroupNorm(1 if norm == "layer" else size // GROUP_CHANNELS, size)


def _cell_problems(cell: str, peepholes: bool) -> list[str]:
    if cell not in CONV_CELLS:
        return [f"--model.cell is {cell!r}; choose one of {', '.join(CONV_CELLS)}."]
    if peepholes and cell != "lstm":
        return [
            f"cell {cell!r} has no peepholes; set --model.peepholes false, or --model.cell lstm."
        ]
    return []


def _size_problems(num_layers: int, kernel_size: int, strides: Sequence[int]) -> list[str]:
    problems = []
    if kernel_size < 1 or kernel_size % 2 == 0:
        problems.append(
            f"--model.kernel_size is {kernel_size}; it must be odd, so that it has a middle."
        )
    if len(strides) != num_layers:
        problems.append(
            f"--model.strides are {len(strides)} for {num_layers} layers; give one for each layer."
        )
    if any(stride < 1 for stride in strides):
        problems.append(f"--model.strides are {list(strides)}; each must be 1 or more.")
    return problems


def _step_problems(name: str, steps: int | None, none: str) -> list[str]:
    if steps is None or steps >= 1:
        return []
    return [f"--model.{name} is {steps}; it must be 1 or more, or null to {none}."]


def _norm_problems(norm: str, size: int) -> list[str]:
    if norm not in get_args(FrameNorm):
        return [f"--model.norm is {norm!r}; choose one of {', '.join(get_args(FrameNorm))}."]
    if norm == "group" and size % GROUP_CHANNELS:
        return [
            f"--model.norm group takes {GROUP_CHANNELS} channels together, the output has {size}. "
            f"Make --model.hidden_size a multiple of {GROUP_CHANNELS}, or choose layer."
        ]
    return []
