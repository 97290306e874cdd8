"""tanh RNN, GRU and LSTM stacks behind one state type; the only place that knows the cells."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2seq.errors import ConfigError
from seq2seq.nn.dropout import SequenceDropout

Cell = Literal["rnn", "gru", "lstm"]
RecurrentState = tuple[Tensor, ...]
"""Parts of a state, each ``(layers * directions, batch, hidden)``: an LSTM has two, others one."""


class _CellKind(NamedTuple):
    """What tells the cells of ``torch.nn`` apart.

    Attributes:
        layer: Makes a layer of the cell.
        gates: How many gates the rows of its matrices and biases belong to, the candidate included.
        parts: How many parts its state has.
        forget_gate: Which of the gates keeps the old state where it is open; None without one.
    """

    layer: Callable[..., nn.Module]
    gates: int
    parts: int = 1
    forget_gate: int | None = None


_CELLS: dict[str, _CellKind] = {
    "rnn": _CellKind(nn.RNN, gates=1),
    "gru": _CellKind(nn.GRU, gates=3),
    "lstm": _CellKind(nn.LSTM, gates=4, parts=2, forget_gate=1),
}
assert set(_CELLS) == set(get_args(Cell))


def state_parts(cell: Cell) -> int:
    """Return how many parts the state of ``cell`` has.

    Raises:
        ConfigError: If there is no such cell.
    """
    if cell not in _CELLS:
        raise ConfigError(f"cell is {cell!r}; choose one of {', '.join(_CELLS)}.")
    return _CELLS[cell].parts


class RecurrentStack(nn.Module):
    """Layers of one recurrent cell, each run over the whole sequence by ``torch.nn``.

    Args:
        cell: Kind of recurrent cell.
        input_size: Width of the input.
        hidden_size: Width of the state, per direction.
        num_layers: Number of layers.
        bidirectional: Read in both directions; the output is ``2 * hidden_size`` wide.
        context_size: Width of a further input that every layer reads beside the layer below; 0
            for none.
        dropout: Dropout between layers.
        variational_dropout: Use the same dropout mask at every time step.
        recurrent_dropout: Dropout on the recurrent matrices, with one mask for a whole batch, all
            its time steps included, so that the layers remain those of ``torch.nn`` (Merity et al.
            2018, arXiv:1708.02182, section 2).
        layer_norm: Normalise the output of every layer.

    Raises:
        ConfigError: If there is no such cell.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        context_size: int = 0,
        dropout: float = 0.0,
        variational_dropout: bool = False,
        recurrent_dropout: float = 0.0,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.num_parts = state_parts(cell)
        self.directions = 2 if bidirectional else 1
        self.output_size = hidden_size * self.directions
        self.num_layers = num_layers
        self.layers = nn.ModuleList(
            _CELLS[cell].layer(
                (self.output_size if layer else input_size) + context_size,
                hidden_size,
                batch_first=True,
                bidirectional=bidirectional,
            )
            for layer in range(num_layers)
        )
        self.norms = nn.ModuleList(
            nn.LayerNorm(self.output_size) if layer_norm else nn.Identity()
            for _ in range(num_layers)
        )
        self.dropout = SequenceDropout(dropout, variational_dropout)
        self.recurrent_dropout = recurrent_dropout
        _reset_parameters(self.layers, _CELLS[cell])

    def forward(
        self,
        inputs: Tensor,
        state: RecurrentState | None = None,
        *,
        lengths: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[Tensor, RecurrentState]:
        """Run over whole sequences.

        Args:
            inputs: ``(batch, time, input_size)``.
            state: Where to go on from; zeros when None.
            lengths: Number of real positions, int64 ``(batch,)``; all of them when None. Outputs
                beyond are zero and the state is that of the last real position.
            context: ``(batch, time, context_size)``, or ``(batch, 1, context_size)`` for the same
                at every step.

        Returns:
            Outputs ``(batch, time, output_size)`` and the state after the last real position.
        """
        outputs, states = inputs, []
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            if number:
                outputs = self.dropout(outputs)
            if context is not None:
                outputs = torch.cat([outputs, context.expand(-1, outputs.shape[1], -1)], dim=-1)
            run = self._with_dropped_weights(layer)
            outputs, layer_state = self._run(run, norm, outputs, self._part(state, number), lengths)
            states.append(layer_state)
        return outputs, tuple(torch.cat(part) for part in zip(*states, strict=True))

    def _part(self, state: RecurrentState | None, layer: int) -> RecurrentState | None:
        if state is None:
            return None
        rows = slice(layer * self.directions, (layer + 1) * self.directions)
        return tuple(part[rows].contiguous() for part in state)

    def _with_dropped_weights(self, layer: nn.Module) -> Callable[..., Any]:
        """Return a layer as this batch has it: in training, without some recurrent weights."""
        if not self.training or self.recurrent_dropout == 0:
            return layer
        weights = {
            name: nn.functional.dropout(weight, self.recurrent_dropout)
            for name, weight in layer.named_parameters()
            if "weight_hh" in name
        }
        return lambda *inputs: functional_call(layer, weights, inputs)

    def _run(
        self,
        layer: Callable[..., Any],
        norm: nn.Module,
        inputs: Tensor,
        state: RecurrentState | None,
        lengths: Tensor | None,
    ) -> tuple[Tensor, RecurrentState]:
        # torch.nn takes and gives a bare tensor where the state has one part.
        initial = state[0] if state is not None and self.num_parts == 1 else state
        if lengths is None:
            outputs, final = layer(inputs, initial)
            outputs = norm(outputs)
        else:
            packed = pack_padded_sequence(
                inputs, lengths.cpu(), batch_first=True, enforce_sorted=False
            )
            packed_outputs, final = layer(packed, initial)
            # Before padding, which a norm would turn into its bias.
            normalised = packed_outputs._replace(data=norm(packed_outputs.data))
            outputs, _ = pad_packed_sequence(
                normalised, batch_first=True, total_length=inputs.shape[1]
            )
        return outputs, (final,) if self.num_parts == 1 else final


def _reset_parameters(layers: nn.ModuleList, kind: _CellKind) -> None:
    """Make recurrent matrices orthogonal per gate, so that early gradients keep their length."""
    for name, parameter in layers.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
            if kind.forget_gate is not None and "bias_ih" in name:
                # Source: Jozefowicz et al. 2015, section 2.2: an LSTM should begin by remembering.
                nn.init.ones_(parameter.detach().chunk(kind.gates)[kind.forget_gate])
        else:
            fill = nn.init.orthogonal_ if "weight_hh" in name else nn.init.xavier_uniform_
            for block in parameter.detach().chunk(kind.gates):
                fill(block)
