"""Pictures to memory: a convolutional network, and a learned projection of its grid."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seq2seq.batches import Memory
from seq2seq.encoders.grid import GridNetwork
from seq2seq.nn.dropout import SequenceDropout


class ImageEncoder(GridNetwork):
    """Looks at pictures; one memory position per cell of a grid.

    Args:
        backbone: torchvision's name of a classification network.
        layer: Layer of it that gives the grid; None for its last grid.
        image_size: Side of the pictures, in pixels.
        mean: Mean of the pictures that its weights were trained on, per channel, from 0 to 1.
        std: Their standard deviation.
        memory_size: Width of the memory.
        dropout: Dropout on the memory.
        variational_dropout: Drop the same values in every cell.
        learned_positions: Add a learned vector to each cell of the grid, by which the decoder can
            tell where in the picture it is.
        fine_tune_from: First layer to be fine-tuned, ``all`` for every one; None for none.
        fine_tune_statistics: Whether batch norm follows the batches; see ``GridNetwork``.

    Raises:
        ConfigError: If there is no such network or layer.

    Source: Xu et al. 2015, arXiv:1502.03044, section 3.1.1.
    """

    def __init__(
        self,
        backbone: str,
        layer: str | None,
        *,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        memory_size: int,
        dropout: float = 0.0,
        variational_dropout: bool = False,
        learned_positions: bool = False,
        fine_tune_from: str | None = None,
        fine_tune_statistics: bool = False,
    ) -> None:
        super().__init__(
            backbone,
            layer,
            image_size=image_size,
            mean=mean,
            std=std,
            fine_tune_from=fine_tune_from,
            fine_tune_statistics=fine_tune_statistics,
        )
        self.memory_size = memory_size
        self.projection = nn.Linear(self.channels, memory_size)
        self.positions = (
            nn.Parameter(torch.zeros(self.grid[0] * self.grid[1], memory_size))
            if learned_positions
            else None
        )
        self.norm = nn.LayerNorm(memory_size)
        self.dropout = SequenceDropout(dropout, variational_dropout)

    def forward(self, inputs: Tensor) -> Memory:
        """Encode a batch.

        Args:
            inputs: Pictures, uint8 ``(batch, 3, size, size)``; or what ``extract`` gave for them,
                ``(batch, cells, channels)``.
        """
        cells = inputs if inputs.ndim == 3 else self.extract(inputs)
        projected = self.projection(cells.to(self.projection.weight.dtype))
        values: Tensor = self.norm(
            projected if self.positions is None else projected + self.positions
        )
        values = self.wait_for_fine_tuning(values)
        summary = values.mean(dim=1)
        mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        return Memory(self.dropout(values), mask, self.dropout(summary.unsqueeze(1)).squeeze(1))
