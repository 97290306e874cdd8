from copy import deepcopy

import pytest
import torch
from torch import nn

from seq2seq.encoders.image import ImageEncoder
from seq2seq.errors import ConfigError

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
MEMORY = 7


def encoder(**options):
    torch.manual_seed(1)
    sizes = {"image_size": 32, "mean": MEAN, "std": STD, "memory_size": MEMORY}
    layer = options.pop("layer", "features.3")
    model = ImageEncoder("mobilenet_v3_small", layer, **{**sizes, **options})
    for name, buffer in model.backbone.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer, std=0.3)
    return model


@pytest.fixture(scope="module")
def frozen():
    return encoder().eval()


@pytest.fixture
def pictures():
    return torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)


# The memory.


def test_each_cell_of_the_grid_is_a_position(frozen, pictures):
    memory = frozen(pictures)
    assert frozen.grid == (4, 4)
    assert memory.values.shape == (3, 16, MEMORY)
    assert memory.mask.shape == (3, 16)
    assert memory.mask.all()
    torch.testing.assert_close(memory.summary, memory.values.mean(dim=1))


def test_cells_come_row_by_row_from_normalised_pictures(frozen, pictures):
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (MEAN, STD))
    with torch.no_grad():
        grid = frozen.backbone((pictures / 255 - mean) / std)["grid"]
    features = frozen.extract(pictures)
    for row in range(4):
        for column in range(4):
            torch.testing.assert_close(features[:, 4 * row + column], grid[:, :, row, column])


def test_features_in_place_of_pictures_give_the_same_memory(frozen, pictures):
    features = frozen.extract(pictures)
    for part, expected in zip(frozen(features)[:3], frozen(pictures)[:3], strict=True):
        assert torch.equal(part, expected)


@pytest.mark.parametrize("mode", [True, False])
def test_other_pictures_of_the_batch_change_nothing(frozen, pictures, mode):
    whole = frozen.train(mode)(pictures)
    for row in range(3):
        alone = frozen(pictures[row : row + 1])
        torch.testing.assert_close(alone.values[0], whole.values[row])
        torch.testing.assert_close(alone.summary[0], whole.summary[row])


def test_dropout_is_on_the_memory_in_training_alone(pictures):
    model = encoder(dropout=0.5, variational_dropout=True)
    values = model(pictures).values
    is_dropped = (values == 0).all(dim=1)  # the same values in every cell
    assert torch.equal(values == 0, is_dropped.unsqueeze(1).expand_as(values))
    assert 0 < is_dropped.float().mean() < 1
    assert (model.eval()(pictures).values != 0).all()


def test_a_cell_knows_its_place_where_positions_are_learned(pictures):
    model = encoder(learned_positions=True).eval()
    alike = torch.full((1, 16, model.channels), 0.3)  # the same features in all cells
    assert torch.equal(model(alike).values, model(alike).values[:, :1].expand(1, 16, MEMORY))
    torch.testing.assert_close(model(pictures).values, encoder().eval()(pictures).values)
    nn.init.normal_(model.positions)
    values = model(alike).values[0]
    assert len({tuple(cell.tolist()) for cell in values}) == 16
    model.train()(pictures).values.square().sum().backward()
    assert model.positions.grad is not None


# What learns.


def train_step(model, pictures):
    """Take a step of everything that may learn; return the names of what has moved."""
    before = deepcopy(model.state_dict())
    model.zero_grad()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    memory = model.train()(pictures)
    (memory.values.square().sum() + memory.summary.sum()).backward()
    optimizer.step()
    after = model.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


HEAD = {"projection.weight", "projection.bias", "norm.weight", "norm.bias"}


def test_a_frozen_network_does_not_move_nor_do_its_statistics(pictures):
    model = encoder()
    assert not model.can_fine_tune
    assert train_step(model, pictures) == HEAD
    model.fine_tune(True)  # of which there is nothing
    assert train_step(model, pictures) == HEAD
    assert model.training
    assert not any(
        module.training for module in model.backbone.modules() if not [*module.children()]
    )


@pytest.mark.parametrize("with_statistics", [False, True])
def test_layers_are_fine_tuned_and_no_others(pictures, with_statistics):
    model = encoder(fine_tune_from="features.2.block.1", fine_tune_statistics=with_statistics)
    assert model.can_fine_tune
    assert train_step(model, pictures) == HEAD
    model.fine_tune(True)
    moved = train_step(model, pictures) - HEAD
    tuned = ("features.2.block.1.", "features.2.block.2.", "features.3.")
    statistics = {name for name in model.backbone.state_dict() if "running" in name}
    names = {
        name
        for name in model.backbone.state_dict()
        if name.startswith(tuned) and "num_batches" not in name
    }
    names -= set() if with_statistics else statistics
    assert {name.removeprefix("backbone.") for name in moved if "num_batches" not in name} == names
    assert all(name.startswith(tuple(f"backbone.{part}" for part in tuned)) for name in moved)
    model.fine_tune(False)
    assert train_step(model, pictures) == HEAD


def test_every_layer_can_be_fine_tuned(pictures):
    model = encoder(fine_tune_from="all")
    model.fine_tune(True)
    model.train()(pictures).values.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_evaluation_stays_evaluation_while_fine_tuning(pictures):
    model = encoder(fine_tune_from="all").eval()
    model.fine_tune(True)
    before = deepcopy(model.state_dict())
    first = model(pictures).values
    assert torch.equal(model(pictures).values, first)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_only_what_is_fine_tuned_costs_a_graph(frozen, pictures):
    assert not frozen.extract(pictures).requires_grad
    model = encoder(fine_tune_from="features.3")
    assert not model.extract(pictures).requires_grad
    model.fine_tune(True)
    assert model.extract(pictures).requires_grad
    with torch.no_grad():
        assert not model.extract(pictures).requires_grad


def test_a_frozen_network_computes_as_for_the_cache_under_mixed_precision(pictures):
    model = encoder(fine_tune_from="features.3").eval()
    plain = model.extract(pictures)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.extract(pictures), plain)
        model.fine_tune(True)
        tuned = model.extract(pictures)
    assert not torch.equal(tuned, plain)
    torch.testing.assert_close(tuned.float(), plain, atol=0.1, rtol=0.1)


def test_a_layer_that_is_not_there_cannot_be_fine_tuned():
    with pytest.raises(ConfigError, match=r"fine_tune_from 'features\.4' is no layer"):
        encoder(fine_tune_from="features.4")


# The fingerprint.


def test_the_fingerprint_is_that_of_the_features(frozen):
    same = deepcopy(frozen)
    nn.init.normal_(same.projection.weight)
    assert same.fingerprint() == frozen.fingerprint() == encoder().fingerprint()


@pytest.mark.parametrize(
    "options", [{"layer": "features.2"}, {"mean": [0.4, 0.5, 0.61]}, {"std": [0.2, 0.31, 0.25]}]
)
def test_the_fingerprint_changes_with_options(frozen, options):
    assert encoder(**options).fingerprint() != frozen.fingerprint()


@pytest.mark.parametrize(
    "name", ["features.3.block.0.0.weight", "features.3.block.0.1.running_var"]
)
def test_the_fingerprint_changes_with_weights_and_statistics(frozen, name):
    other = deepcopy(frozen)
    other.backbone.state_dict()[name][0] += 0.01
    assert other.fingerprint() != frozen.fingerprint()


def test_the_fingerprint_knows_precisions(frozen):
    prints = {deepcopy(frozen).to(dtype).fingerprint() for dtype in (torch.float64, torch.bfloat16)}
    assert len(prints | {frozen.fingerprint()}) == 3
