"""The recurrent decoder over values: it reads what is known, and its own outputs elsewhere."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from seq2seq.batches import Memory
from seq2seq.decoders.base import DecoderState
from seq2seq.decoders.recurrent import RecurrentDecoder
from seq2seq.nn.recurrent import Cell

Head = Literal["value", "gaussian"]

_SMALLEST_DEVIATION = 1e-4  # of a series whose own is 1; keeps the likelihood finite


class SeriesState(NamedTuple):
    """Everything that is carried from one step of a series to the next; never changed in place.

    Attributes:
        recurrent: State of the recurrent layers.
        recent: The last values, ``(batch, difference + 1, channels)``, of which the very last has
            not been read yet.
    """

    recurrent: DecoderState
    recent: Tensor

    def select(self, index: Tensor) -> "SeriesState":
        """Return the rows of ``index``, int64 ``(rows,)``, in that order."""
        return SeriesState(self.recurrent.select(index), self.recent[index])

    def pack(self) -> list[Tensor]:
        """Return it as a list of tensors on the CPU, as ``unpack`` takes it."""
        return [part.cpu() for part in (self.recent, *self.recurrent.recurrent)]

    @staticmethod
    def unpack(packed: list[Tensor]) -> "SeriesState":
        """Return the state that was packed."""
        recent, *recurrent = packed
        return SeriesState(DecoderState(tuple(recurrent)), recent)

    def to(self, like: Tensor) -> "SeriesState":
        """Return the same state on the device and of the type of a tensor."""
        parts = tuple(part.to(like) for part in self.recurrent.recurrent)
        return SeriesState(DecoderState(parts), self.recent.to(like))

    def detach(self) -> "SeriesState":
        """Return the same state, cut off from the graph for truncated back-propagation."""
        return SeriesState(self.recurrent.detach(), self.recent.detach())


class SeriesOutput(NamedTuple):
    """What is predicted for some steps, each from the steps before it.

    Attributes:
        values: ``(batch, time, channels)``; with a Gaussian head the means.
        deviation: Standard deviations, of the same shape; None with the head ``value``.
        state: The state after the last step.
    """

    values: Tensor
    deviation: Tensor | None
    state: SeriesState


class SeriesDecoder(nn.Module):
    """Predicts the next values of series, which have been standardised.

    Without ``residual`` and ``difference`` it is a stack of ``torch.nn`` layers and a linear layer.

    Args:
        num_channels: Number of values at each step.
        hidden_size: Width of the recurrent state.
        num_layers: Number of recurrent layers.
        cell: Kind of recurrent cell.
        head: ``value`` predicts a number; ``gaussian`` a mean and a standard deviation.
        residual: Add what the linear layer gives to the last input, so that it is a change.
        difference: What is read and predicted is the change against the value this many steps ago;
            0 for the value itself.
        dropout: Dropout between layers and before the linear layer.
        layer_norm: Normalise the output of every layer.

    Raises:
        ConfigError: If the cell or the number of layers cannot be.
    """

    def __init__(
        self,
        num_channels: int,
        *,
        hidden_size: int,
        num_layers: int = 2,
        cell: Cell = "lstm",
        head: Head = "value",
        residual: bool = False,
        difference: int = 0,
        dropout: float = 0.0,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.is_gaussian = head == "gaussian"
        self.is_residual = residual
        self.difference = difference
        self.decoder = RecurrentDecoder(
            nn.Identity(),
            nn.Linear(hidden_size, num_channels * (2 if self.is_gaussian else 1)),
            input_size=num_channels,
            feature_size=hidden_size,
            memory_size=0,
            hidden_size=hidden_size,
            num_layers=num_layers,
            cell=cell,
            attention="none",
            feed="output",
            readout="none",
            dropout=dropout,
            drops_inputs=False,
            layer_norm=layer_norm,
        )

    @property
    def lead(self) -> int:
        """How many steps there have to be before the first that can be predicted."""
        return self.difference + 1

    def begin(self, values: Tensor, is_known: Tensor) -> SeriesState:
        """Return the state before the first step that can be predicted.

        Args:
            values: The first ``lead`` steps, ``(batch, lead, channels)``.
            is_known: False where a value is missing, which is taken for the one before it, or else
                for 0, the mean; bool, of the same shape.
        """
        recent = [torch.where(is_known[:, 0], values[:, 0], 0.0)]
        for step in range(1, self.lead):
            recent.append(torch.where(is_known[:, step], values[:, step], recent[-1]))
        memory = Memory.nothing(len(values), values)
        return SeriesState(self.decoder.init_state(memory), torch.stack(recent, dim=1))

    def forward(
        self,
        values: Tensor,
        is_read: Tensor,
        state: SeriesState,
        noise: Tensor | None = None,
    ) -> SeriesOutput:
        """Predict steps, each after reading the one before it.

        A stretch of steps that are read runs as a whole. Gradients pass through what the decoder
        reads of its own.

        Args:
            values: The steps themselves, ``(batch, time, channels)``.
            is_read: Where to go on from the value; elsewhere it is what was predicted, bool, of the
                same shape.
            state: The state before the first of them.
            noise: Standard normal numbers, ``(paths, time, channels)``, with which what was
                predicted is drawn from its Gaussian: row ``i`` has those of path ``i % paths``.
                None to take its mean.
        """
        parts = list(self._follow(values, is_read, state, noise))
        means = torch.cat([part.values for part in parts], dim=1)
        deviations = [part.deviation for part in parts if part.deviation is not None]
        return SeriesOutput(
            means, torch.cat(deviations, dim=1) if deviations else None, parts[-1].state
        )

    def run_free(self, state: SeriesState, steps: int, noise: Tensor | None = None) -> SeriesOutput:
        """Predict steps, reading nothing but what was predicted; see ``forward``."""
        rows, _, channels = state.recent.shape
        values = state.recent.new_zeros(rows, steps, channels)
        return self(values, torch.zeros_like(values, dtype=torch.bool), state, noise)  # type: ignore[no-any-return]  # nn.Module.__call__

    def spread(self, state: SeriesState, center: Tensor, paths: int, seed: int) -> Tensor:
        """Return how far drawn futures lie from ``center``: the root of their mean square distance.

        Args:
            state: The state before the first step, with a Gaussian head.
            center: ``(batch, time, channels)``.
            paths: Number of futures of each row; all rows have the same random numbers.
            seed: Of these.
        """
        # Drawn on the CPU, so that every device has the same.
        generator = torch.Generator().manual_seed(seed)
        shape = (paths, *center.shape[1:])
        noise = torch.randn(shape, generator=generator, dtype=center.dtype).to(center.device)
        distances = []
        for row in range(len(center)):  # one at a time: the futures of one fill a batch
            alone = state.select(torch.full((paths,), row, device=center.device))
            output = self.run_free(alone, center.shape[1], noise)
            assert output.deviation is not None
            drawn = output.values + noise * output.deviation
            distances.append((drawn - center[row]).square().mean(dim=0).sqrt())
        return torch.stack(distances)

    def _follow(
        self,
        values: Tensor,
        is_read: Tensor,
        state: SeriesState,
        noise: Tensor | None,
    ) -> Iterator[SeriesOutput]:
        """Yield the predictions of stretches, each but the last ending with a step not read."""
        steps = values.shape[1]
        unread = (~is_read).any(dim=2).any(dim=0).nonzero()[:, 0]
        start = 0
        for end in sorted({*(unread + 1).tolist(), steps}):
            known = torch.cat([state.recent, values[:, start:end]], dim=1)
            output = self._predict(known, state.recurrent)
            own = output.values[:, -1]
            if noise is not None and output.deviation is not None:
                draw = noise[:, end - 1].repeat(len(own) // len(noise), 1)
                own = own + draw * output.deviation[:, -1]
            last = torch.where(is_read[:, end - 1], values[:, end - 1], own)
            recent = torch.cat([known[:, :-1], last.unsqueeze(1)], dim=1)[:, -self.lead :]
            state = SeriesState(output.state.recurrent, recent)
            yield output._replace(state=state)
            start = end

    def _predict(self, known: Tensor, recurrent: DecoderState) -> SeriesOutput:
        """Predict the steps of ``known``, ``(batch, lead + time, channels)``, after its first."""
        lag, lead = self.difference, self.lead
        inputs = known[:, lag:-1]
        if lag:
            inputs = inputs - known[:, :-lead]
        output = self.decoder(inputs, Memory.nothing(len(known), known), recurrent)
        scores = self.decoder.score(output.features).to(known.dtype)
        deviation = None
        if self.is_gaussian:
            scores, raw = scores.chunk(2, dim=-1)
            deviation = functional.softplus(raw) + _SMALLEST_DEVIATION
        if self.is_residual:
            scores = scores + inputs
        if lag:
            scores = scores + known[:, 1 : known.shape[1] - lag]
        return SeriesOutput(scores, deviation, SeriesState(output.state, known))
