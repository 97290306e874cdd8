import os
import warnings

import pytest
import torch
from torchvision import models

from seq2seq.encoders.backbones import (
    build_backbone,
    layers_from,
    load_weights,
    normalisation,
)
from seq2seq.errors import ConfigError


@pytest.fixture(scope="module")
def resnet():
    """Return torchvision's own network, with statistics that are not those of a new one."""
    torch.manual_seed(2)
    model = models.resnet18(weights=None).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
    return model


@pytest.fixture(scope="module")
def weights(resnet, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet.pt"
    torch.save(resnet.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def network():
    """Return a short network, for tests of what cannot be loaded into it."""
    return build_backbone("resnet18", "layer1", 32).network


def output_of(model, layer, pictures):
    outputs = []
    # A copy: the next layer may work in place.
    handle = layer.register_forward_hook(lambda *call: outputs.append(call[2].clone()))
    with torch.no_grad():
        model(pictures)
    handle.remove()
    return outputs[-1]


# Which networks, and which of their layers.


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", None),
        ("mobilenet_v3_small", None),
        ("efficientnet_b0", "features.6"),
        ("regnet_y_400mf", None),
        ("convnext_tiny", None),
        ("squeezenet1_1", "features.9.squeeze_activation"),
    ],
)
def test_many_networks_make_a_grid(name, layer):
    network, found, channels, grid = build_backbone(name, layer, 64)
    assert layer in (None, found)
    assert min(grid) > 1
    with torch.no_grad():
        for mode in (True, False):
            output = network.train(mode)(torch.rand(2, 3, 64, 64))["grid"]
            assert output.shape == (2, channels, *grid)


@pytest.mark.parametrize(
    ("layer", "module"), [(None, "layer4"), ("layer2", "layer2"), ("layer3.0.bn1", "layer3.0.bn1")]
)
def test_a_network_ends_at_its_layer(resnet, weights, layer, module):
    backbone = build_backbone("resnet18", layer, 64)
    load_weights(backbone.network, "resnet18", str(weights))
    pictures = torch.randn(3, 3, 64, 64)
    expected = output_of(resnet, resnet.get_submodule(module), pictures)
    with torch.no_grad():
        output = backbone.network(pictures)["grid"]
    torch.testing.assert_close(output, expected)
    assert (backbone.channels, *backbone.grid) == expected.shape[1:]


def test_what_lies_behind_the_layer_is_cut_off():
    network = build_backbone("resnet18", "layer2", 32).network
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {
        *("conv1", "bn1", "layer1", "layer2"),
    }


@pytest.mark.parametrize(
    ("name", "layer", "size", "message"),
    [
        ("resnet19", None, 64, r"'resnet19', which torchvision does not have .* resnet18, "),
        ("resnet18", "layer5", 64, r"backbone_layer 'layer5' is not in resnet18\. .* fc\."),
        ("resnet18", "fc", 64, r"'fc' of resnet18 gives \(1000,\) per picture, not channels"),
        ("vit_b_16", None, 224, r"makes no grid of features\. Choose a convolutional network\."),
        ("alexnet", None, 32, r"image_size=32 does not suit the backbone .* such as 224\."),
        ("alexnet", "features.12", 32, r"image_size=32 does not suit the backbone"),
    ],
)
def test_what_gives_no_grid_is_refused(name, layer, size, message):
    with pytest.raises(ConfigError, match=message):
        build_backbone(name, layer, size)


# Weights.


def test_weights_of_another_network_are_refused(weights, network, tmp_path):
    other = build_backbone("squeezenet1_1", "features.3", 32).network
    with pytest.raises(ConfigError, match=r"resnet\.pt do not fit squeezenet1_1: .*--model\.back"):
        load_weights(other, "squeezenet1_1", str(weights))
    # Those that lie behind the cut, too: half a file is no file of this network.
    state = torch.load(weights)
    del state["fc.bias"]
    torch.save(state, tmp_path / "half.pt")
    with pytest.raises(ConfigError, match=r"half\.pt do not fit resnet18: .*fc\.bias"):
        load_weights(network, "resnet18", str(tmp_path / "half.pt"))


class Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_weights_with_code_are_refused_and_not_executed(network, tmp_path):
    torch.save({"conv1.weight": Code(tmp_path / "executed")}, tmp_path / "code.pt")
    with pytest.raises(ConfigError, match=r"code\.pt: is no file of tensors that .* safely"):
        load_weights(network, "resnet18", str(tmp_path / "code.pt"))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", None])
def test_damaged_weights_are_refused(weights, network, tmp_path, content):
    half = weights.read_bytes()[:9000]
    (tmp_path / "damaged.pt").write_bytes(half if content is None else content)
    with pytest.raises(ConfigError, match=r"damaged\.pt: .*Save one with torch\.save"):
        load_weights(network, "resnet18", str(tmp_path / "damaged.pt"))


def test_missing_weights_are_refused_with_the_names_there_are(network, tmp_path):
    with pytest.raises(ConfigError, match=r"'.*none\.pt' is neither a file nor .*IMAGENET1K_V1"):
        load_weights(network, "resnet18", str(tmp_path / "none.pt"))
    torch.save([torch.ones(3)], tmp_path / "list.pt")
    with pytest.raises(ConfigError, match=r"list\.pt: holds no state dictionary"):
        load_weights(network, "resnet18", str(tmp_path / "list.pt"))


def test_weights_by_name_are_torchvisions(resnet, monkeypatch):
    def downloaded(kind, **_):
        assert kind is models.ResNet18_Weights.IMAGENET1K_V1
        return resnet.state_dict()

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", downloaded)
    network = build_backbone("resnet18", "layer1", 32).network
    load_weights(network, "resnet18", "DEFAULT")
    for name, value in network.state_dict().items():
        assert torch.equal(value, resnet.state_dict()[name]), name


def test_weights_that_cannot_be_downloaded_can_be_a_file(network, monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", offline)
    with pytest.raises(ConfigError, match=r"downloaded \(no route to host\)\. .*weights FILE"):
        load_weights(network, "resnet18", "DEFAULT")


def test_pictures_are_normalised_as_the_weights_want():
    imagenet = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    assert normalisation("resnet50", "DEFAULT") == imagenet
    assert normalisation("resnet50", "some/file.pt") == normalisation("resnet50", None) == imagenet
    assert normalisation("efficientnet_v2_l", "DEFAULT") == ([0.5] * 3, [0.5] * 3)


def test_googlenet_is_normalised_as_its_model_does_it():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its old initial values
        model = models.GoogLeNet(aux_logits=False, transform_input=True, init_weights=False)
    pictures = torch.rand(2, 3, 5, 4)
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in normalisation("resnet18", None))
    expected = model._transform_input((pictures - mean) / std)
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in normalisation("googlenet", "x.pt"))
    torch.testing.assert_close((pictures - mean) / std, expected)


# Layers to be fine-tuned.


def test_layers_come_in_the_order_of_computation():
    network = build_backbone("resnet18", "layer2", 32).network
    names = [name for name, _ in layers_from(network, "layer1.1.conv2")]
    assert names[:3] == ["layer1.1.conv2", "layer1.1.bn2", "layer2.0.conv1"]
    assert all(name.startswith("layer2.") for name in names[2:])
    assert [name for name, _ in layers_from(network, "layer2")] == names[2:]


@pytest.mark.parametrize(
    ("name", "layer"), [("resnet18", "layer3"), ("convnext_tiny", "features.1")]
)
def test_all_layers_have_all_parameters(name, layer):
    network = build_backbone(name, layer, 32).network
    found = {p for _, module in layers_from(network, "all") for p in module.parameters()}
    assert found == set(network.parameters())


def test_a_layer_that_is_not_there_is_refused_with_those_that_are():
    network = build_backbone("resnet18", "layer2", 32).network
    with pytest.raises(ConfigError, match=r"fine_tune_from 'layer3' .* all or one of .*layer2\.1"):
        list(layers_from(network, "layer3"))
