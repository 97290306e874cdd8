"""torchvision's classification networks as makers of feature grids."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from seq2seq.errors import ConfigError

ALL_LAYERS = "all"
"""In the place of a layer's name: every layer, from the first on."""

# What torchvision's own weights are trained with, and most others.
_IMAGENET_MEAN = [0.485, 0.456, 0.406]
_IMAGENET_STD = [0.229, 0.224, 0.225]
# torchvision's models of these turn ImageNet's normalisation into this one, if they load weights.
_HALVES = [0.5, 0.5, 0.5]
_NORMALISED_BY_HALVES = ("googlenet", "inception_v3")


class Backbone(NamedTuple):
    """A network that ends at one of its layers.

    Attributes:
        network: Maps pictures ``(batch, 3, size, size)`` to ``{"grid": (batch, channels, rows,
            columns)}``.
        layer: Name of that layer.
        channels: Width of a grid cell.
        grid: Rows and columns.
    """

    network: nn.Module
    layer: str
    channels: int
    grid: tuple[int, int]


def build_backbone(name: str, layer: str | None, image_size: int) -> Backbone:
    """Return an untrained network of torchvision, cut off behind a layer.

    Args:
        name: torchvision's name of a classification network, such as ``resnet50``.
        layer: Module or operation whose output is wanted, such as ``layer3``; None for the last
            grid of the network.
        image_size: Side of the pictures, in pixels.

    Raises:
        ConfigError: If there is no such network or layer, the layer gives no grid, or the pictures
            are too small.
    """
    if name not in backbone_names():
        raise ConfigError(
            f"--model.backbone is {name!r}, which torchvision does not have for classification; "
            f"choose one of {', '.join(backbone_names())}."
        )
    with warnings.catch_warnings():
        # Advice on initial values of two old networks, and on layers that only training has.
        warnings.simplefilter("ignore")
        model = models.get_model(name, weights=None)
        trained, used = get_graph_node_names(model)
        known = [node for node in used if node in set(trained)]
        if layer is not None and not any(_is_within(node, layer) for node in known):
            raise ConfigError(
                f"--model.backbone_layer {layer!r} is not in {name}. Its last ones are "
                f"{', '.join(known[-12:])}."
            )
        pictures = torch.zeros(1, 3, image_size, image_size)
        layer = layer or _last_grid(model, known, pictures)
        network = create_feature_extractor(model, {layer: "grid"})
    shape = _run(network, pictures)["grid"].shape
    if len(shape) != 4:
        raise ConfigError(
            f"--model.backbone_layer {layer!r} of {name} gives {tuple(shape[1:])} per picture, not "
            "channels, rows and columns. Name an earlier layer."
        )
    return Backbone(network, layer, shape[1], (shape[2], shape[3]))


def backbone_names() -> list[str]:
    """Return the names of all networks that can be chosen."""
    return list(models.list_models(module=models))


def _last_grid(model: nn.Module, layers: list[str], pictures: Tensor) -> str:
    """Return the last layer whose output has more than one row and column."""
    grids = []
    # The only grid of a vision transformer is that of its patches, before any layer looks at them.
    if not any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        probe = create_feature_extractor(model, {layer: layer for layer in layers})
        grids = [
            layer
            for layer, output in _run(probe, pictures).items()
            if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1
        ]
    if not grids:
        raise ConfigError("the backbone makes no grid of features. Choose a convolutional network.")
    return grids[-1]


def _run(network: nn.Module, pictures: Tensor) -> dict[str, Any]:
    try:
        with torch.no_grad():
            outputs: dict[str, Any] = network.eval()(pictures)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"--model.image_size={pictures.shape[-1]} does not suit the backbone "
            f"({' '.join(str(error).split())[:200]}). Choose another one, such as 224."
        ) from error
    return outputs


def _is_within(node: str, layer: str) -> bool:
    return node == layer or node.startswith(f"{layer}.")


def normalisation(backbone: str, weights: str | None) -> tuple[list[float], list[float]]:
    """Return the mean and the standard deviation of the pictures that weights were trained on.

    Args:
        backbone: torchvision's name of the network.
        weights: torchvision's name of the weights; anything else is taken for weights that were
            trained as torchvision's are.
    """
    if backbone in _NORMALISED_BY_HALVES:
        return _HALVES, _HALVES
    if (
        backbone in backbone_names()
        and weights in (kinds := models.get_model_weights(backbone)).__members__
    ):
        preset: Any = kinds[weights].transforms()
        return list(preset.mean), list(preset.std)
    return list(_IMAGENET_MEAN), list(_IMAGENET_STD)


def load_weights(network: nn.Module, backbone: str, weights: str) -> None:
    """Fill a network that ``build_backbone`` made with trained weights.

    Args:
        network: The network, cut off or not.
        backbone: Its name.
        weights: torchvision's name of weights, such as ``DEFAULT``, which are downloaded once; or
            the path of a file that holds a state dictionary of the whole network.

    Raises:
        ConfigError: If the weights cannot be read or do not fit.
    """
    kinds = models.get_model_weights(backbone)
    if weights in kinds.__members__:
        try:
            # By way of the model: some of the files have names of an older version in them.
            whole = models.get_model(backbone, weights=kinds[weights])
        except (URLError, OSError, RuntimeError) as error:
            raise ConfigError(
                f"backbone_weights {weights!r} of {backbone} cannot be downloaded ({error}). Give "
                "the path of a file: --model.backbone_weights FILE."
            ) from error
    else:
        whole = _load_file(Path(weights), backbone, list(kinds.__members__))
    full = whole.state_dict()
    network.load_state_dict({name: full[name] for name in network.state_dict()})


def _load_file(path: Path, backbone: str, names: list[str]) -> nn.Module:
    if not path.is_file():
        raise ConfigError(
            f"--model.backbone_weights {str(path)!r} is neither a file nor one of torchvision's "
            f"weights of {backbone}, which are {', '.join(names) or 'none'}. Give one of these."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # which one it is depends on the first wrong byte
        raise ConfigError(
            f"backbone_weights {path}: is no file of tensors that torch can load safely, or is "
            "damaged. Save one with torch.save(model.state_dict(), path)."
        ) from error
    if not isinstance(state, dict):
        raise ConfigError(
            f"backbone_weights {path}: holds no state dictionary. Save one with "
            "torch.save(model.state_dict(), path)."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in build_backbone
        model: nn.Module = models.get_model(backbone, weights=None)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(
            f"backbone_weights {path} do not fit {backbone}: "
            f"{' '.join(str(error).split())[:300]}. Give weights of this network, or name theirs "
            "as --model.backbone."
        ) from error
    return model


def layers_from(network: nn.Module, layer: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that compute something, from a layer on, in the order of computation.

    These are the innermost ones, and those with parameters of their own beside their parts.

    Args:
        network: What ``build_backbone`` made.
        layer: Name of a module, such as ``layer4``; ``all`` for every one.

    Raises:
        ConfigError: If there is no such layer.
    """
    found = [
        (name, module)
        for name, module in network.named_modules()
        if name and (not any(module.children()) or list(module.parameters(recurse=False)))
    ]
    if layer == ALL_LAYERS:
        yield from found
        return
    starts = [place for place, (name, _) in enumerate(found) if _is_within(name, layer)]
    if not starts:
        blocks = dict.fromkeys(name.rpartition(".")[0] or name for name, _ in found)
        raise ConfigError(
            f"--model.fine_tune_from {layer!r} is no layer of the backbone; choose all or one of "
            f"{', '.join(blocks)}."
        )
    yield from found[starts[0] :]
