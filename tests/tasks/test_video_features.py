"""Training of a classifier of videos that sees frames through a network of torchvision."""

import pytest
import torch
from toy_captions import write_weights
from toy_classifier import assert_equal_weights, classifier, fit, with_backbone
from toy_clips import module, of_split, write_corpus

from seq2seq.encoders.grid import GridNetwork
from seq2seq.errors import ConfigError
from seq2seq.tasks.options import Optimization


@pytest.fixture
def source(tmp_path):
    return write_corpus(tmp_path / "corpus")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(write_weights(tmp_path_factory.mktemp("weights") / "backbone.pt"))


@pytest.fixture
def seen(monkeypatch):
    """Return the numbers of frames that a network of torchvision has looked at, batch by batch."""
    sizes = []
    extract = GridNetwork.extract

    def counted(self, pictures):
        sizes.append(len(pictures))
        return extract(self, pictures)

    monkeypatch.setattr(GridNetwork, "extract", counted)
    return sizes


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_kept_features_train_and_score_as_frames_do(source, make_trainer, weights, precision):
    tasks, scores = [], []
    for cache_features in (False, True):
        torch.manual_seed(1)
        # Adam would not tell a large gradient from one that is all rounding.
        plain = Optimization(optimizer="sgd", learning_rate=0.05)
        task = with_backbone(backbone_weights=weights, optimization=plain)
        data = module(source, cache_features=cache_features)
        fitting = fit(make_trainer, task, data, limit_val_batches=1.0, precision=precision)
        tasks.append(task)
        scores.append({name: value.item() for name, value in fitting.callback_metrics.items()})
    # Features are kept with 16 bits.
    tolerance = 1e-4 if precision == "32-true" else 3e-3
    assert_equal_weights(*tasks, rtol=0.0, atol=tolerance)
    for name, value in scores[0].items():
        assert scores[1][name] == pytest.approx(value, abs=0.01), name


def test_a_frozen_network_sees_each_frame_once(source, make_trainer, weights, seen):
    counts = []
    for _ in range(2):
        seen.clear()
        task = with_backbone(backbone_weights=weights, mixup=0.4)
        fit(make_trainer, task, module(source, cache_features=True), limit_val_batches=1.0)
        counts.append(sum(seen))
    frames = 10 * (len(of_split("train")) + len(of_split("val")))
    assert counts == [frames, 0]
    loaded = torch.load(weights)
    for name, value in task.encoder.network.backbone.state_dict().items():
        assert torch.equal(value, loaded[name]), name


@pytest.mark.parametrize("build", [classifier, lambda: with_backbone(fine_tune_from="features.3")])
def test_only_features_of_a_frozen_network_can_be_kept(source, make_trainer, build):
    with pytest.raises(
        ConfigError,
        match=r"--data\.cache_features .*--model\.frame_network, without --model\.fine_tune_from",
    ):
        fit(make_trainer, build(), module(source, cache_features=True))


def test_layers_of_the_network_learn_from_their_step_on(source, make_trainer, weights):
    task = with_backbone(
        backbone_weights=weights, fine_tune_from="features.3", fine_tune_start=2, mixup=0.4
    )
    loaded = torch.load(weights)

    def moved(steps):
        torch.manual_seed(1)
        fit(make_trainer, task, module(source), steps=steps)
        state = task.encoder.network.backbone.state_dict()
        return {name for name, value in state.items() if not torch.equal(value, loaded[name])}

    assert moved(2) == set()
    learned = moved(3)
    assert learned
    assert all(name.startswith("features.3.") for name in learned)
