"""What travels between the parts: a batch from the data, a memory from the encoder."""

from typing import Any, NamedTuple

from torch import Tensor


class TextInput(NamedTuple):
    """A batch of token sequences, as a text encoder reads them.

    Attributes:
        tokens: Ids ending in ``EOS_ID`` and padded with ``PAD_ID``, int64 ``(batch, source)``.
        lengths: Number of real tokens, at least 1, int64 ``(batch,)``.
    """

    tokens: Tensor
    lengths: Tensor


class Batch(NamedTuple):
    """One batch, whatever the modality.

    Attributes:
        inputs: What the task's encoder takes: a ``TextInput``, a tensor of pictures, ...
        target: Ids ending in ``EOS_ID`` and padded with ``PAD_ID``, int64 ``(batch, time)``;
            None when only the inputs are known.
        indices: Position of each example in its corpus, int64 ``(batch,)``.
        references: The raw target texts of each example, for scoring what was decoded.
    """

    inputs: Any
    target: Tensor | None
    indices: Tensor
    references: tuple[tuple[str, ...], ...] = ()

    def example(self, row: int) -> "Batch":
        """Return one example as a batch of its own, on the CPU."""

        def select(part: Tensor) -> Tensor:
            return part[row : row + 1].cpu()

        inputs = self.inputs
        return Batch(
            select(inputs) if isinstance(inputs, Tensor) else type(inputs)(*map(select, inputs)),
            None if self.target is None else select(self.target),
            select(self.indices),
            self.references[row : row + 1],
        )


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

    def select(self, index: Tensor) -> "Memory":
        """Return the rows of ``index``, int64 ``(rows,)``, in that order."""
        keys = None if self.keys is None else self.keys[index]
        return Memory(self.values[index], self.mask[index], self.summary[index], keys)
