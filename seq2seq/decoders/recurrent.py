"""The recurrent decoder that every modality shares."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from seq2seq.batches import Memory
from seq2seq.decoders.base import Decoder, DecoderOutput, DecoderState, StepOutput
from seq2seq.errors import ConfigError, raise_together
from seq2seq.nn.attention import AttentionKind, attention_problems, build_attention
from seq2seq.nn.dropout import SequenceDropout
from seq2seq.nn.recurrent import Cell, RecurrentStack, state_parts

Feed = Literal["output", "layer", "input"]
Readout = Literal["tanh", "none"]


class RecurrentDecoder(Decoder):
    """A stack of recurrent layers with attention, and a readout in front of the output layer.

    Args:
        input_layer: Maps decoder inputs ``(batch, time)``, or values ``(batch, time, channels)``,
            to ``(batch, time, input_size)``.
        output_layer: Maps features ``(..., feature_size)`` to scores ``(..., outputs)``.
        input_size: Width of an embedded input.
        feature_size: Width of what the output layer reads; ``hidden_size`` without a readout.
        memory_size: Width of the memory's values and summary; 0 where there is nothing to know but
            the inputs (``Memory.nothing``): the first state is then zero.
        hidden_size: Width of the recurrent state.
        num_layers: Number of recurrent layers.
        cell: Kind of recurrent cell.
        attention: ``none`` feeds the memory's summary to every layer at every step; ``dot``,
            ``bilinear`` and ``additive`` attend to its values.
        feed: How the attended context enters. ``output``: only the readout sees it (Luong et al.
            2015, arXiv:1508.04025, without input feeding). ``layer``: the first layer makes the
            query, the upper layers see the context (GNMT, arXiv:1609.08144, section 3.1).
            ``input``: the features of the previous step join the input (Luong et al., section
            3.3), which forces training to go step by step.
        readout: ``tanh`` is ``tanh(W [state; context; input])`` (Bahdanau et al. 2015,
            arXiv:1409.0473, appendix A.2.2, with tanh in the place of maxout); ``none`` lets the
            output layer read the state of the last recurrent layer.
        dropout: Dropout on inputs, between layers and on features.
        drops_inputs: Whether dropout is for inputs, too; not where one that is zero would be
            another value.
        variational_dropout: Use the same dropout mask at every time step; not with feed ``input``.
        layer_norm: Normalise the output of every layer.

    Raises:
        ConfigError: If an option has no such value, or options do not fit together; all at once.
    """

    def __init__(
        self,
        input_layer: nn.Module,
        output_layer: nn.Module,
        *,
        input_size: int,
        feature_size: int,
        memory_size: int,
        hidden_size: int,
        num_layers: int = 2,
        cell: Cell = "gru",
        attention: AttentionKind = "bilinear",
        feed: Feed = "layer",
        readout: Readout = "tanh",
        dropout: float = 0.0,
        drops_inputs: bool = True,
        variational_dropout: bool = False,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        assert readout == "tanh" or feature_size == hidden_size
        problems = option_problems(
            cell,
            attention,
            feed,
            num_layers,
            hidden_size=hidden_size,
            memory_size=memory_size,
            variational_dropout=variational_dropout,
        )
        raise_together(problems, ConfigError, "The decoder cannot be built:")
        self.is_input_fed = feed == "input"
        self.feature_size = feature_size
        self.num_parts = state_parts(cell)
        self.state_shape = (self.num_parts * num_layers, hidden_size)
        self.input_layer = input_layer
        self.output_layer = output_layer
        self.init_layer = (
            nn.Linear(memory_size, self.num_parts * num_layers * hidden_size)
            if memory_size
            else None
        )
        self.attention = build_attention(attention, hidden_size, memory_size)
        self.dropout = SequenceDropout(dropout, variational_dropout)
        self.drops_inputs = drops_inputs

        def stack(width: int, layers: int, context_size: int) -> RecurrentStack:
            return RecurrentStack(
                cell,
                width,
                hidden_size,
                layers,
                context_size=context_size,
                dropout=dropout,
                variational_dropout=variational_dropout,
                layer_norm=layer_norm,
            )

        query_layers = 1 if feed == "layer" and self.attention is not None else num_layers
        width = input_size + (feature_size if self.is_input_fed else 0)
        self.lower = stack(width, query_layers, memory_size if self.attention is None else 0)
        self.upper = (
            stack(hidden_size, num_layers - query_layers, memory_size)
            if num_layers > query_layers
            else None
        )
        self.readout = (
            nn.Linear(hidden_size + memory_size + input_size, feature_size)
            if readout == "tanh"
            else None
        )

    def prepare(self, memory: Memory) -> Memory:
        """Return ``memory`` with the attention's keys computed."""
        if self.attention is None or memory.keys is not None:
            return memory
        return memory._replace(keys=self.attention.keys(memory.values))

    def init_state(self, memory: Memory) -> DecoderState:
        """Return the state before the first step: made from the memory's summary, or else zero.

        Source: Bahdanau et al. 2015, arXiv:1409.0473, appendix A.2.2 (for every layer and part).
        """
        rows = len(memory.summary)
        if self.init_layer is None:
            states = memory.summary.new_zeros(self.state_shape[0], rows, self.state_shape[1])
        else:
            initial = self.init_layer(memory.summary).tanh()
            states = initial.unflatten(-1, self.state_shape).transpose(0, 1).contiguous()
        fed = states.new_zeros(rows, self.feature_size) if self.is_input_fed else None
        return DecoderState(states.chunk(self.num_parts), fed)

    def forward(
        self, inputs: Tensor, memory: Memory, state: DecoderState | None = None
    ) -> DecoderOutput:
        """Run over whole sequences: in parallel, or step by step with input feeding.

        Args:
            inputs: Shifted targets, int64 ``(batch, time)``, or values ``(batch, time, channels)``.
            memory: Encoder output for the same rows.
            state: Where to go on from; ``init_state(memory)`` when None.
        """
        memory = self.prepare(memory)
        state = self.init_state(memory) if state is None else state
        embedded = self._embed(inputs)
        if not self.is_input_fed:
            return self._advance(embedded, state, memory)
        features, attentions = [], []
        for position in range(embedded.shape[1]):
            output = self._advance(embedded[:, position : position + 1], state, memory)
            state = output.state
            features.append(output.features)
            attentions.append(output.attention)
        weights = [weight for weight in attentions if weight is not None]
        return DecoderOutput(
            torch.cat(features, dim=1), torch.cat(weights, dim=1) if weights else None, state
        )

    def step(self, token: Tensor, state: DecoderState, memory: Memory) -> StepOutput:
        """Advance by one token; see ``Decoder.step``."""
        output = self._advance(self._embed(token.unsqueeze(1)), state, memory)
        attention = None if output.attention is None else output.attention.squeeze(1)
        return StepOutput(self.score(output.features.squeeze(1)), attention, output.state)

    def score(self, features: Tensor) -> Tensor:
        """Return unnormalised scores ``(..., outputs)`` of features ``(..., feature_size)``."""
        scores: Tensor = self.output_layer(features)
        return scores

    def _embed(self, inputs: Tensor) -> Tensor:
        embedded: Tensor = self.input_layer(inputs)
        return self.dropout(embedded) if self.drops_inputs else embedded

    def _advance(self, embedded: Tensor, state: DecoderState, memory: Memory) -> DecoderOutput:
        """Advance by all steps of ``embedded``, ``(batch, time, input_size)``."""
        inputs = embedded
        if state.fed is not None:
            inputs = torch.cat([embedded, state.fed.unsqueeze(1)], dim=-1)
        split = self.lower.num_layers
        lower = tuple(part[:split] for part in state.recurrent)
        if self.attention is None:
            weights = None
            context = _share(memory.summary, len(embedded))
            hidden, lower = self.lower(inputs, lower, context=context)
            context = context.expand(-1, hidden.shape[1], -1)
        else:
            hidden, lower = self.lower(inputs, lower)
            context, weights = self._attend(hidden, memory)
        recurrent = lower
        if self.upper is not None:
            upper = tuple(part[split:] for part in state.recurrent)
            hidden, upper = self.upper(self.dropout(hidden), upper, context=context)
            recurrent = tuple(torch.cat(parts) for parts in zip(lower, upper, strict=True))
        features = self.dropout(hidden)
        if self.readout is not None:
            joined = torch.cat([features, context, embedded], dim=-1)
            features = self.dropout(self.readout(joined).tanh())
        fed = features[:, -1] if self.is_input_fed else None
        return DecoderOutput(features, weights, DecoderState(recurrent, fed))

    def _attend(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend with ``(rows, time, hidden)``, where several rows may share a memory row."""
        assert self.attention is not None
        rows, time, _ = query.shape
        # Beams of one sentence are further queries to the same memory: nothing is copied.
        context, weights = self.attention(
            query.reshape(len(memory.mask), -1, query.shape[-1]), memory
        )
        return context.view(rows, time, -1), weights.view(rows, time, -1)


def _share(summary: Tensor, rows: int) -> Tensor:
    """Return ``(rows, 1, memory_size)``: each summary once per row that it serves."""
    return summary.repeat_interleave(rows // len(summary), dim=0).unsqueeze(1)


def option_problems(
    cell: str,
    attention: str,
    feed: str,
    num_layers: int,
    *,
    hidden_size: int,
    memory_size: int,
    variational_dropout: bool,
) -> list[str]:
    """Return what is wrong with a decoder's options."""
    problems = [
        f"{option} is {value!r}; choose one of {', '.join(allowed)}."
        for option, value, allowed in (
            ("cell", cell, get_args(Cell)),
            ("feed", feed, get_args(Feed)),
        )
        if value not in allowed
    ]
    problems += attention_problems(attention, hidden_size, memory_size)
    if hidden_size and not memory_size and attention != "none":
        problems.append(f"attention {attention!r} has no memory to attend to. Set it to none.")
    if num_layers < 1:
        problems.append(f"a decoder needs at least one layer, not {num_layers}.")
    elif feed == "layer" and attention != "none" and num_layers < 2:
        problems.append(
            "feed 'layer' needs two decoder layers or more: the first makes the query, the others "
            "see the context. Set --model.decoder_layers 2, or --model.feed output."
        )
    if feed == "input" and variational_dropout:
        problems.append(
            "feed 'input' trains step by step, and each step would draw dropout masks of its own "
            "despite variational_dropout. Set --model.variational_dropout false, or --model.feed "
            "layer."
        )
    return problems
