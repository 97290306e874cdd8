"""ConvRNN, ConvGRU and ConvLSTM: the cells of ``torch.nn`` with convolutions for matrices."""

from abc import abstractmethod
from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor, nn

from seq2seq.nn.recurrent import Cell, RecurrentState


class ConvCell(nn.Module):
    """One layer of a convolutional cell in one direction.

    A frame is convolved by ``input_convolution``, the state by ``state_convolution``; their output
    channels hold the gates in the order of ``torch.nn``. So a kernel of 1 on frames of 1x1 is the
    layer of ``torch.nn`` with the same weights.

    Args:
        input_size: Channels of a frame.
        hidden_size: Channels of the state.
        kernel_size: Width and height of both kernels; odd.
        stride: Step of the kernel over the frame. The state is smaller than the frame by it.

    Attributes:
        gates: How many gates the channels of the convolutions belong to, the candidate included.
        parts: How many parts the state has. The first is the output.
        forget_gate: Which of the gates keeps the old state where it is open; None without one.
    """

    gates: int
    parts = 1
    forget_gate: int | None = None

    def __init__(
        self, input_size: int, hidden_size: int, kernel_size: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        padding, channels = kernel_size // 2, self.gates * hidden_size
        self.input_convolution = nn.Conv2d(input_size, channels, kernel_size, stride, padding)
        self.state_convolution = nn.Conv2d(hidden_size, channels, kernel_size, 1, padding)
        self._reset_parameters()

    def forward(
        self,
        frames: Tensor,
        state: RecurrentState | None = None,
        is_real: Tensor | None = None,
        is_reversed: bool = False,
    ) -> tuple[Tensor, RecurrentState]:
        """Run over all frames, convolving them in one call.

        Args:
            frames: ``(batch, time, channels, height, width)``.
            state: Where to go on from; zeros when None.
            is_real: bool ``(batch, time)``, False on frames that leave the state as it is; all
                are True when None.
            is_reversed: Go from the last frame to the first.

        Returns:
            Outputs ``(batch, time, hidden, height / stride, width / stride)``, rounded up, and the
            state after the last frame gone through. The output at a frame that is not real is the
            state that was kept.
        """
        batch, time = frames.shape[:2]
        convolved: Tensor = self.input_convolution(frames.flatten(0, 1))
        height, width = convolved.shape[2:]
        convolved = convolved.view(batch, time, -1, height, width)
        if state is None:
            zeros = convolved.new_zeros(batch, self.hidden_size, height, width)
            state = (zeros,) * self.parts
        else:
            # Autocast may have been switched since.
            state = tuple(part.to(convolved.dtype) for part in state)
        steps = convolved.unbind(dim=1)
        masks = None if is_real is None else is_real[:, :, None, None, None].unbind(dim=1)
        outputs = []
        for position in reversed(range(time)) if is_reversed else range(time):
            advanced = self.advance(steps[position], state)
            if masks is not None:
                advanced = tuple(
                    torch.where(masks[position], new, old)
                    for new, old in zip(advanced, state, strict=True)
                )
            state = advanced
            outputs.append(state[0])
        if is_reversed:
            outputs.reverse()
        return torch.stack(outputs, dim=1), state

    @abstractmethod
    def advance(self, convolved: Tensor, state: RecurrentState) -> RecurrentState:
        """Return the next state.

        Args:
            convolved: A frame after ``input_convolution``, ``(batch, gates * hidden, height,
                width)``.
            state: The parts of the state, each ``(batch, hidden, height, width)``.
        """

    def _reset_parameters(self) -> None:
        """Begin as ``RecurrentStack`` does: state kernels keep the length of early gradients."""
        for block in self.input_convolution.weight.detach().chunk(self.gates):
            nn.init.xavier_uniform_(block)
        # Orthogonal in the middle and zero around it. Source: Xiao et al. 2018, arXiv:1806.05393
        # (delta-orthogonal).
        nn.init.zeros_(self.state_convolution.weight)
        middle = self.state_convolution.kernel_size[0] // 2
        for block in self.state_convolution.weight.detach().chunk(self.gates):
            nn.init.orthogonal_(block[:, :, middle, middle])
        for convolution in (self.input_convolution, self.state_convolution):
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)
        if self.forget_gate is not None:
            assert self.input_convolution.bias is not None
            # Source: Jozefowicz et al. 2015, section 2.2: an LSTM should begin by remembering.
            biases = self.input_convolution.bias.detach().chunk(self.gates)
            nn.init.ones_(biases[self.forget_gate])


class ConvRNN(ConvCell):
    """A tanh RNN."""

    gates = 1

    def advance(self, convolved: Tensor, state: RecurrentState) -> RecurrentState:
        """Return the next state, ``(hidden,)``."""
        return (torch.tanh(convolved + self.state_convolution(state[0])),)


class ConvGRU(ConvCell):
    """A GRU that resets after its convolution, so that one convolution serves all gates.

    Source: Ballas et al. 2016, arXiv:1511.06432, section 3.1, which resets before it.
    """

    gates = 3

    def advance(self, convolved: Tensor, state: RecurrentState) -> RecurrentState:
        """Return the next state, ``(hidden,)``."""
        (hidden,) = state
        sizes = [2 * self.hidden_size, self.hidden_size]
        frame_gates, frame_candidate = torch.split(convolved, sizes, dim=1)
        convolved_state = self.state_convolution(hidden)
        state_gates, state_candidate = torch.split(convolved_state, sizes, dim=1)
        reset, keep = torch.sigmoid(frame_gates + state_gates).chunk(2, dim=1)
        candidate = torch.tanh(torch.addcmul(frame_candidate, reset, state_candidate))
        return (torch.lerp(candidate, hidden, keep),)


class ConvLSTM(ConvCell):
    """An LSTM, optionally with gates that look at the cell.

    Args:
        input_size: Channels of a frame.
        hidden_size: Channels of the state.
        kernel_size: Width and height of both kernels; odd.
        stride: Step of the kernel over the frame.
        peepholes: Let input and forget gates see the old cell and the output gate the new one,
            through one weight for each channel. The weights begin at zero.

    Source: Shi et al. 2015, arXiv:1506.04214, equation 3, where each place has its own peephole
    weights; ours do not fix the size of a frame.
    """

    gates = 4
    parts = 2
    forget_gate = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        kernel_size: int,
        stride: int = 1,
        *,
        peepholes: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, kernel_size, stride)
        # Of the input, the forget and the output gate.
        self.peepholes = nn.Parameter(torch.zeros(3, hidden_size, 1, 1)) if peepholes else None

    def advance(self, convolved: Tensor, state: RecurrentState) -> RecurrentState:
        """Return the next state, ``(hidden, cell)``."""
        hidden, cell = state
        gates = convolved + self.state_convolution(hidden)
        admit, forget, candidate, release = gates.chunk(4, dim=1)
        if self.peepholes is not None:
            weights = self.peepholes.to(cell.dtype)
            admit, forget = admit + weights[0] * cell, forget + weights[1] * cell
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(admit) * torch.tanh(candidate)
        if self.peepholes is not None:
            release = release + weights[2] * cell
        return torch.sigmoid(release) * torch.tanh(cell), cell


CONV_CELLS: dict[str, Callable[..., ConvCell]] = {
    "rnn": ConvRNN,
    "gru": ConvGRU,
    "lstm": ConvLSTM,
}
assert set(CONV_CELLS) == set(get_args(Cell))
