"""Pictures to grids of features: a convolutional network of torchvision, frozen or fine-tuned."""

import hashlib
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from seq2seq.encoders.backbones import build_backbone, layers_from, load_weights


class GridNetwork(nn.Module):
    """A network that looks at pictures, and gives a grid of features.

    It is frozen, in evaluation mode, but for the layers that are fine-tuned.

    Args:
        backbone: torchvision's name of a classification network.
        layer: Layer of it that gives the grid; None for its last grid.
        image_size: Side of the pictures, in pixels.
        mean: Mean of the pictures that its weights were trained on, per channel, from 0 to 1.
        std: Their standard deviation.
        fine_tune_from: First layer to be fine-tuned, ``all`` for every one; None for none.
        fine_tune_statistics: Normalise by the statistics of the batch in fine-tuned layers with
            batch norm, and let the kept ones follow; else those of the loaded weights stay.

    Attributes:
        backbone_name: Name of the network.
        layer: Name of the layer that gives the grid.
        channels: Width of the network's grid cells.
        grid: Rows and columns of the network's grid.
        follows_statistics: Whether batch norm in layers that learn follows the batches.
        is_fine_tuning: Whether the layers to be fine-tuned do learn; else they are frozen, too.

    Raises:
        ConfigError: If there is no such network or layer.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str,
        layer: str | None,
        *,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        fine_tune_from: str | None = None,
        fine_tune_statistics: bool = False,
    ) -> None:
        super().__init__()
        self.backbone_name = backbone
        self.backbone, self.layer, self.channels, self.grid = build_backbone(
            backbone, layer, image_size
        )
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.is_fine_tuning = False
        self.follows_statistics = fine_tune_statistics
        self._tuned: dict[str, nn.Module] = {}
        if fine_tune_from is not None:
            self._tuned = dict(layers_from(self.backbone, fine_tune_from))
        self.backbone.requires_grad_(False)
        for module in self._tuned.values():
            module.requires_grad_(True)
        self.train(self.training)

    @property
    def can_fine_tune(self) -> bool:
        """Whether any layer of the network can learn."""
        return bool(self._tuned)

    def load_weights(self, weights: str) -> None:
        """Fill the network with trained weights; see ``backbones.load_weights``."""
        load_weights(self.backbone, self.backbone_name, weights)

    def fine_tune(self, is_fine_tuning: bool) -> None:
        """Let the layers to be fine-tuned learn, or freeze them."""
        self.is_fine_tuning = is_fine_tuning
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode, but leave frozen layers in evaluation mode: their statistics stay."""
        super().train(mode)
        self.backbone.train(mode and self.is_fine_tuning)
        for name, module in self.backbone.named_modules():
            is_frozen = not any(module.children()) and name not in self._tuned
            keeps_statistics = isinstance(module, _BatchNorm) and not self.follows_statistics
            if name and (is_frozen or keeps_statistics):
                module.eval()
        return self

    def wait_for_fine_tuning(self, features: Tensor) -> Tensor:
        """Return ``features``, tied to what will learn later, where DDP has to see that.

        DDP stops where a parameter that may learn gets no gradient: until then it is zero.
        """
        if not self.can_fine_tune or self.is_fine_tuning or not _is_distributed():
            return features
        waiting = (p for p in self.backbone.parameters() if p.requires_grad)
        return features + sum(parameter.sum() * 0 for parameter in waiting)

    def extract(self, pictures: Tensor) -> Tensor:
        """Return the network's grid, row by row, ``(batch, cells, channels)``.

        Args:
            pictures: uint8 ``(batch, 3, size, size)``.
        """
        normalised = (pictures.to(self.mean.dtype) / 255 - self.mean) / self.std
        normalised = normalised.contiguous(memory_format=torch.channels_last)
        device = pictures.device.type
        learns = self.is_fine_tuning and torch.is_grad_enabled()
        # A frozen network computes in full precision, as for a cache of features.
        is_mixed = learns and torch.is_autocast_enabled(device)
        with torch.set_grad_enabled(learns), torch.autocast(device, enabled=is_mixed):
            grid: Tensor = self.backbone(normalised)["grid"]
        return grid.flatten(2).transpose(1, 2)

    def fingerprint(self) -> str:
        """Return a hash of all that the features of a picture depend on, hexadecimal."""
        digest = hashlib.blake2b(repr((self.backbone_name, self.layer)).encode(), digest_size=16)
        buffers = {"mean": self.mean, "std": self.std}
        for tensor in (self.backbone.state_dict() | buffers).values():
            # As bytes: NumPy has no bfloat16.
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
